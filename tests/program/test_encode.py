"""The tables that the compiled core exports: what is built on them, and a core of other tables."""

from __future__ import annotations

import runpy

import numpy as np
import pytest

from octavo.batch import Want
from octavo.errors import KernelError
from octavo.kernels import native
from octavo.program import encode
from octavo.program.encode import RECORD, check_core, check_kinds


def test_a_record_has_the_fields_and_the_size_that_the_core_says() -> None:
    assert RECORD.names == tuple(name for name, _ in native.RECORD_FIELDS)
    assert RECORD["matrix"].shape == (3,)
    assert RECORD["scale"] == np.float32
    assert RECORD.itemsize == 152


def test_wants_are_numbered_as_the_core_numbers_them() -> None:
    assert [want.name for want in sorted(Want)] == list(native.WANTS)


FIELDS = RECORD.names or ()
KINDS = (*native.NORMS, *native.ACTIVATIONS, *native.ROPE_STYLES, *native.ROUTE_SCORES)


@pytest.mark.parametrize(
    ("ops", "fields", "message"),
    [
        (native.OPS[:-1], FIELDS, f"{native.OPS[-1]} is an op that the core lacks"),
        ((*native.OPS, "Gelu"), FIELDS, "Gelu is an op that octavo.program lacks"),
        (("A", *native.OPS, "B"), FIELDS, "A, B is an op that octavo.program lacks"),
        (native.OPS, FIELDS[1:], f"{FIELDS[0]} is a record field that the core lacks"),
        (native.OPS, (*FIELDS, "bias"), "bias is a record field that octavo.program lacks"),
    ],
)
def test_a_core_of_other_tables_is_refused(
    ops: tuple[str, ...], fields: tuple[str, ...], message: str
) -> None:
    with pytest.raises(KernelError, match=f"{message}; build it again with `make build`"):
        check_core(ops, fields)


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (KINDS[1:], f"{KINDS[0]} is a kind that the core lacks"),
        ((*KINDS, "swish"), "swish is a kind that octavo.program lacks"),
    ],
)
def test_a_core_of_other_kinds_is_refused(kinds: tuple[str, ...], message: str) -> None:
    with pytest.raises(KernelError, match=f"{message}; build it again with `make build`"):
        check_kinds(kinds)


def test_the_order_of_the_tables_is_the_cores_own() -> None:
    check_core(native.OPS[::-1], FIELDS[::-1])


@pytest.mark.parametrize(
    ("table", "name", "what"), [("OPS", "Embed", "an op"), ("ACTIVATIONS", "relu", "a kind")]
)
def test_the_refusal_comes_at_import(
    table: str, name: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, table, [each for each in getattr(native, table) if each != name])
    with pytest.raises(KernelError, match=f"{name} is {what} that the core lacks"):
        runpy.run_path(encode.__file__)
