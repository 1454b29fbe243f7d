"""Layers that attend to what an earlier layer stored, and store nothing themselves."""

from __future__ import annotations

import numpy as np
import pytest

from octavo.batch import Asked, Want, make_batch
from octavo.kernels import KV_FORMATS, native
from octavo.program.builder import ProgramBuilder
from octavo.program.cost import Work, cost, uniform_weights
from octavo.program.kv_bytes import PageFormats, kv_bytes_by_group
from octavo.program.ops import Attend, KVSpec, StoreKV, WeightSpec
from octavo.program.program import Program
from octavo.program.reference import ReferenceInterpreter
from octavo.weights.ggml_type import GGMLType
from tests.exactness.programs import Grouped, grouped, windowed
from tests.program.one_sequence import check_near, tokens_of
from tests.tiny import make_runner, random_model

POOL = native.ThreadPool(2)
VOCAB = 300
GROUPS = KVSpec(2, 32, 16), windowed(20)
BF16 = PageFormats.everywhere(KV_FORMATS["bf16"])


def program_of(sharing: int) -> Program:
    return grouped(Grouped(GROUPS, 3, VOCAB, sharing=sharing))


@pytest.mark.parametrize("fuse", [True, False])
def test_equals_the_reference(fuse: bool) -> None:
    model = random_model(program_of(sharing=3), POOL, type=GGMLType.F32)
    runner = make_runner(model, POOL, kv_dtype="f32", fuse=fuse)
    assert runner.op_names.count("QKV") == (3 if fuse else 0)
    reference = ReferenceInterpreter(model.program, model.exact, num_blocks=64)
    tokens = tokens_of(VOCAB)
    for begin, end in ((0, 60), (60, 70)):
        wants = [Asked(Want.LOGITS)] * (end - begin)
        batch = make_batch(
            [(tokens[begin:end], begin)], [[range(3)]] * 2, range(end - begin), wants
        )
        check_near(runner.run(batch).logits, reference.run(batch).logits)


def test_they_read_the_last_layer_that_their_group_stored() -> None:
    program = program_of(sharing=3)
    stored = [(op.group, op.layer) for op in program.ops if isinstance(op, StoreKV)]
    read = [(op.group, op.layer) for op in program.ops if isinstance(op, Attend)]
    assert stored == [(0, 0), (1, 0), (0, 1)]
    assert read == [*stored, (1, 0), (0, 1), (1, 0)]


def test_pages_hold_them_once_and_every_layer_reads_them() -> None:
    plain, sharing = program_of(0), program_of(3)
    assert sharing.layers_of_group == plain.layers_of_group == (2, 1)
    assert kv_bytes_by_group(sharing, BF16) == kv_bytes_by_group(plain, BF16)
    costs = [
        cost(p, Work(1, 99), weight_bytes=uniform_weights(p, 8), formats=BF16)
        for p in (plain, sharing)
    ]
    written, read = ([sum(getattr(op, f"kv_{how}_bytes") for op in each) for each in costs]
                     for how in ("write", "read"))  # fmt: skip
    assert written[0] == written[1]
    full, window = 100 * 2 * (32 + 16) * 2, 20 * (32 + 32) * 2
    assert read == [2 * full + window, 3 * full + 3 * window]


@pytest.mark.parametrize("layer", [None, -1, 1])
def test_only_a_layer_that_was_stored_may_be_read(layer: int | None) -> None:
    p = ProgramBuilder()
    group = p.kv_group(KVSpec(1, 32, 32))
    h = p.embed(WeightSpec("table", (VOCAB, 32)))
    h = p.attention(h, h, h, heads=1, group=group, scale=0.2)
    with pytest.raises(AssertionError):
        p.attention(h, heads=1, group=group, scale=0.2, layer=layer)
    again = p.attention(h, heads=1, group=group, scale=0.2, layer=0)
    program = p.logits(again, WeightSpec("head", (VOCAB, 32)))
    assert np.array_equal([op.layer for op in program.ops if isinstance(op, Attend)], [0, 0])
