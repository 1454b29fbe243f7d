"""Rows that are gathered from a table in a file, columns of them, and learned factors."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from octavo.batch import FloatArray, Want
from octavo.engine.runner import Runner
from octavo.kernels import KV_FORMATS, native
from octavo.program.builder import ProgramBuilder
from octavo.program.classes import classify
from octavo.program.cost import Work, cost, uniform_weights
from octavo.program.kv_bytes import PageFormats
from octavo.program.ops import Embed, KVSpec, Scale, Slice, WeightSpec
from octavo.program.program import Program
from octavo.program.reference import ReferenceInterpreter
from octavo.weights.file_table import FileTable
from octavo.weights.ggml_type import GGMLType
from tests.exactness.programs import Grouped, grouped, windowed
from tests.kernels.gguf_blocks import random_blocks
from tests.program.one_sequence import batch_of, check_near, tokens_of
from tests.program.parts import Parts, make_parts
from tests.tiny import TinyModel, make_runner, random_model

POOL = native.ThreadPool(2)
VOCAB, COLS = 40, 512
TOKENS = [t % VOCAB for t in tokens_of(300)]
BF16 = PageFormats.everywhere(KV_FORMATS["bf16"])


def program_of(begin: int = 0, width: int = COLS, *, factor: bool = False) -> Program:
    """The hidden rows are columns of those of a table, as they are or times a factor."""
    p = ProgramBuilder()
    h = p.embed(WeightSpec("table", (VOCAB, 32)))
    p.attention(h, h, h, heads=1, group=p.kv_group(KVSpec(1, 32, 32)), scale=1.0)
    rows = p.embed(WeightSpec("in file", (VOCAB, COLS), source="file"))
    part = p.slice(rows, begin, width)
    if factor:
        part = p.scale(part, 0.3, factor=WeightSpec("factor", (1,)))
    return p.logits(part, WeightSpec("head", (VOCAB, width)))


def model_of(program: Program, type: GGMLType = GGMLType.Q6_K) -> TinyModel:
    """Its table of this type, all else float32."""
    model = random_model(program, POOL, type=GGMLType.F32)
    blocks = random_blocks(type, VOCAB, COLS, np.random.default_rng(4))
    tables = {"in file": FileTable(type, blocks, VOCAB, COLS)}
    return replace(model, weights=replace(model.weights, tables=tables))


def hidden(runner: Runner) -> FloatArray:
    wants = [Want.HIDDEN] * len(TOKENS)
    return runner.run(batch_of(TOKENS, range(len(TOKENS)), wants)).hidden


@pytest.mark.parametrize("type", GGMLType)
def test_rows_of_every_type_are_those_of_numpy(type: GGMLType) -> None:
    model = model_of(program_of(), type)
    want = model.weights.tables["in file"].gather(np.array(TOKENS, np.int32))
    assert np.array_equal(hidden(make_runner(model, POOL)), want)


@pytest.mark.parametrize(("begin", "width"), [(0, 32), (96, 64), (COLS - 32, 32), (7, 100)])
def test_a_slice_is_some_of_the_columns(begin: int, width: int) -> None:
    model = model_of(program_of(begin, width))
    rows = model.weights.tables["in file"].gather(np.array(TOKENS, np.int32))
    assert np.array_equal(hidden(make_runner(model, POOL)), rows[:, begin : begin + width])


def test_a_learned_factor_multiplies_the_number() -> None:
    model = model_of(program_of(factor=True))
    rows = model.weights.tables["in file"].gather(np.array(TOKENS, np.int32))
    want = rows * (np.float32(0.3) * model.exact["factor"])
    assert np.array_equal(hidden(make_runner(model, POOL)), want)


@pytest.mark.parametrize("fuse", [True, False])
def test_layers_that_add_them_equal_the_reference(fuse: bool) -> None:
    program = grouped(Grouped((KVSpec(2, 32, 32), windowed(20)), 2, VOCAB, from_file=True))
    model = random_model(program, POOL, type=GGMLType.F32)
    runner = make_runner(model, POOL, kv_dtype="f32", fuse=fuse)
    reference = ReferenceInterpreter(
        program, model.exact, num_blocks=64, tables=model.weights.tables
    )
    wants = [Want.LOGITS] * len(TOKENS)
    batch = batch_of(TOKENS, range(len(TOKENS)), wants, groups=2)
    check_near(runner.run(batch).logits, reference.run(batch).logits)


def test_a_program_keeps_its_table() -> None:
    runner = make_runner(model_of(program_of()), POOL)
    want = hidden(runner)
    gc.collect()
    assert np.array_equal(hidden(runner), want)


def test_a_token_costs_its_row_and_no_memory() -> None:
    program = program_of(64, 32, factor=True)
    assert uniform_weights(program, 8)["in file"] == 0
    weight_bytes = {**uniform_weights(program, 8), "in file": 40.0 * 420}
    costs = cost(program, Work(3), weight_bytes=weight_bytes, formats=BF16)
    classes = dict(zip(program.ops, classify(program), strict=True))
    of = dict(zip(program.ops, costs, strict=True))
    gathered, part, scaled = (
        next(op for op in program.ops[3:] if isinstance(op, kind))
        for kind in (Embed, Slice, Scale)
    )  # fmt: skip
    assert of[gathered].weight_bytes == 3 * 420
    assert {classes[op] for op in (gathered, part, scaled)} == {"embed"}
    assert of[part].flops == 0
    assert of[part].activation_bytes == 3 * 2 * 32 * 4
    assert of[scaled].weight_bytes == 1


def cut(**fields: int) -> Any:
    def change(parts: Parts) -> None:
        at = parts.ops.index("Slice")
        for name, value in fields.items():
            parts.records[name][at] = value

    return change


def put_table(value: int, at: int) -> Any:
    def change(parts: Parts) -> None:
        found = [i for i, op in enumerate(parts.ops) if op == "Embed"]
        parts.records["table"][found[at]] = value

    return change


def put_matrix(parts: Parts) -> None:
    """Beside the table a matrix of positions, which no check of tokens or positions has in mind."""
    parts.records["matrix"][parts.ops.index("Slice") - 1, 1] = 1 << 20


ROWS = np.zeros(VOCAB * COLS, np.uint8)  # of Q8_0, with too few bytes
REFUSED: dict[str, tuple[Any, list[Any], str]] = {
    "no such table": (put_table(1, 1), [], ".table: expected 0 to 0, got 1"),
    "first of a file": (put_table(0, 0), [], "table cols: expected 512, got 32"),
    "second in memory": (put_table(-1, 1), [], "matrix: expected 0 to"),
    "beside a matrix": (put_matrix, [], "matrix, beside a table: expected -1, got 1048576"),
    "begins before": (cut(offset=-1), [], "offset: expected 0 to 448, got -1"),
    "ends behind": (cut(offset=449), [], "offset: expected 0 to 448, got 449"),
    "few bytes": (cut(), [(ROWS, 8, VOCAB, COLS)], "tables bytes: expected 21760, got 20480"),
    "half a block": (cut(), [(ROWS, 8, VOCAB, 500)], "expected rows of whole blocks"),
    "no rows": (cut(), [(ROWS, 8, 0, COLS)], "expected rows of whole blocks"),
    "no type": (cut(), [(ROWS, 9, VOCAB, COLS)], "type"),
    "few rows": (cut(), [(ROWS, 0, 10, COLS)], "tables rows, at least: expected 40, got 10"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_leave_its_arrays_is_refused(name: str) -> None:
    change, tables, said = REFUSED[name]
    model = random_model(program_of(64, 64), POOL, type=GGMLType.Q8_0)
    parts = make_parts(fused=False, model=model)
    parts.tables = [(table.data, int(table.type), table.rows, table.cols)
                    for table in model.weights.tables.values()]  # fmt: skip
    parts.build()
    change(parts)
    parts.tables = tables or parts.tables
    with pytest.raises(ValueError, match=said):
        parts.build()
