"""Matrices of single heads, and heads joined: the native interpreter against the reference, rows
alone against rows together."""

from __future__ import annotations

import numpy as np
import pytest

from octavo.batch import Asked, Want, make_batch
from octavo.kernels import KV_FORMATS, native
from octavo.program.builder import ProgramBuilder
from octavo.program.classes import OpClass, classify
from octavo.program.cost import Work, cost, uniform_weights
from octavo.program.kv_bytes import PageFormats, kv_bytes_per_token
from octavo.program.ops import Attend, HeadLinear, Join, KVSpec, Linear, Rope, WeightSpec
from octavo.program.program import output
from octavo.program.slide import slide
from octavo.weights.ggml_type import GGMLType
from tests.exactness.programs import Latent, latent
from tests.kernels.gguf_blocks import OWN_FORMAT
from tests.program.one_sequence import check_near, reference_logits, tokens_of
from tests.program.parts import make_parts
from tests.tiny import all_logits, make_runner, random_model

POOL = native.ThreadPool(2)
VOCAB = 40
TOKENS = tokens_of(VOCAB)
SHAPES = {
    "three heads": Latent(3, 2, VOCAB),
    "one head": Latent(1, 2, VOCAB),
    "q by a narrow one": Latent(4, 2, VOCAB, narrow=32),
    "many heads": Latent(40, 1, VOCAB, latent=48, plain=16, values=16),
    "an odd number of columns": Latent(3, 1, VOCAB, plain=19),
    "DeepSeek-V2's": Latent(16, 1, VOCAB, latent=512, turned=64, plain=128, values=128),
}
BF16, F32 = KV_FORMATS["bf16"], KV_FORMATS["f32"]


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("name", SHAPES)
def test_float32_weights_equal_the_reference(name: str, fuse: bool) -> None:
    model = random_model(latent(SHAPES[name]), POOL, type=GGMLType.F32)
    runner = make_runner(model, POOL, kv_dtype="f32", fuse=fuse)
    assert runner.op_names.count("HeadLinear") == 2 * SHAPES[name].num_layers
    for rows in (1, 5, 70):
        got = all_logits(runner, TOKENS[:rows])
        check_near(got, reference_logits(model.program, model.exact, TOKENS[:rows]))


@pytest.mark.parametrize("type", [type for type in OWN_FORMAT if OWN_FORMAT[type][-1] != "K"])
def test_integer_matrices_follow_the_reference_with_rounded_rows(type: GGMLType) -> None:
    model = random_model(latent(Latent(3, 1, VOCAB)), POOL, type=type)
    got = all_logits(make_runner(model, POOL, kv_dtype="f32"), TOKENS)
    want = reference_logits(model.program, model.exact, TOKENS, activations="int8")
    error = np.sqrt(np.mean((got - want) ** 2)) / want.std()
    assert error < 0.05  # heads exchanged, or a matrix turned, give 1


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("type", [GGMLType.F32, GGMLType.BF16, GGMLType.Q8_0])
def test_a_row_does_not_know_who_is_beside_it(type: GGMLType, threads: int) -> None:
    pool = native.ThreadPool(threads)
    model = random_model(latent(Latent(5, 2, VOCAB, narrow=32)), POOL, type=type)
    runner = make_runner(model, pool, max_rows=600, num_blocks=128)
    rng = np.random.default_rng(4)
    sequences = [rng.integers(0, VOCAB, length).tolist() for length in (1, 7, 300, 2, 130, 5)]
    tables = [[[12 * i + block for block in range(12)] for i in range(len(sequences))]]
    rows = sum(map(len, sequences))
    wants = [Asked(Want.LOGITS)] * rows
    batch = make_batch([(tokens, 0) for tokens in sequences], tables, range(rows), wants)
    ends = np.cumsum([len(tokens) for tokens in sequences])[:-1]
    together = np.split(runner.run(batch).logits, ends)
    for tokens, got in zip(sequences, together, strict=True):
        assert np.array_equal(got, all_logits(runner, tokens))
        size = len(tokens)
        cuts = range(1, size) if size < 10 else (1, 2, size // 3, size - 1)
        assert np.array_equal(got, all_logits(runner, tokens, cuts=cuts))


def test_a_nan_in_one_head_spoils_no_other_row() -> None:
    model = random_model(latent(SHAPES["three heads"]), POOL, type=GGMLType.F32)
    want = all_logits(make_runner(model, POOL, kv_dtype="f32"), TOKENS[:3])
    table = model.exact["table"].copy()
    table[TOKENS[3]] = np.nan
    model.weights.matrices["table"] = native.pack_weight(
        POOL, table.view(np.uint8).reshape(-1), int(GGMLType.F32), VOCAB, 64, "F32"
    )
    got = all_logits(make_runner(model, POOL, kv_dtype="f32"), TOKENS[:4])
    assert np.isnan(got[3]).all()
    assert np.array_equal(got[:3], want)


REFUSED: dict[str, tuple[str, str, object, str]] = {
    "no head": ("HeadLinear", "heads", 0, "heads: expected 1 to 96, got 0"),
    "heads that do not divide": ("HeadLinear", "heads", 5, "x width, modulo heads: expected 0"),
    "other heads": ("HeadLinear", "heads", 2, "matrix cols: expected 48, got 32"),
    "other columns": ("HeadLinear", "matrix", [0, -1, -1], "matrix rows: expected 192, got 40"),
    "kind of rows": ("HeadLinear", "row_kind", [2, -1, -1], "row kind: expected 0, got 2"),
    "out": ("HeadLinear", "out", 99, "out: expected 0 to"),
    "no head joined": ("Join", "heads", 0, "heads: expected 1 to 64, got 0"),
    "y": ("Join", "heads", 32, "heads: expected 1 to 16, got 32"),
    "another y": ("Join", "y", 0, "out width: expected 128, got 80"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_program_that_would_leave_its_arrays_is_refused(name: str) -> None:
    op, field, value, message = REFUSED[name]
    model = random_model(latent(SHAPES["three heads"]), POOL, type=GGMLType.Q8_0)
    parts = make_parts(model=model)
    parts.records[field][parts.ops.index(op)] = value
    with pytest.raises(ValueError, match=message):
        parts.build()


def test_matrices_of_heads_are_whole_panels() -> None:
    p = ProgramBuilder(rope_frequencies=[1.0])
    group = p.kv_group(KVSpec(1, 32, 32))
    h = p.embed(WeightSpec("table", (VOCAB, 128)))
    k = p.linear(h, WeightSpec("k", (32, 128)))
    h = p.attention(h, k, k, heads=4, group=group, scale=1.0)
    h = p.head_linear(h, WeightSpec("w", (96, 32)), heads=4)
    model = random_model(p.logits(h, WeightSpec("head", (VOCAB, 96))), POOL, type=GGMLType.Q8_0)
    with pytest.raises(ValueError, match="out width, modulo 16 x heads: expected 0, got 32"):
        make_parts(model=model).build()


def test_costs_are_those_of_the_matrices_and_pages_have_a_row_of_one_head() -> None:
    shape = Latent(3, 2, VOCAB, narrow=32)
    program = latent(shape)
    assert kv_bytes_per_token(program, PageFormats.everywhere(F32, BF16)) == 2 * (80 * 4 + 64 * 2)
    costs = cost(
        program,
        Work(7, 30),
        weight_bytes=uniform_weights(program, 8),
        formats=PageFormats.everywhere(F32, BF16),
    )
    for op, each in zip(program.ops, costs, strict=True):
        if isinstance(op, HeadLinear):
            rows, cols = op.weight.shape
            assert (each.flops, each.weight_bytes) == (7 * 2 * rows * cols, rows * cols)
            assert each.activation_bytes == 4 * 7 * (3 * cols + rows)
        if isinstance(op, Join):
            assert (each.flops, each.weight_bytes) == (0, 0)


def test_where_a_context_slides_only_the_part_of_q_that_turns_has_other_turns() -> None:
    program = slide(latent(Latent(3, 1, VOCAB)), 64, 32)
    writers = {out.id: op for op in program.ops if (out := output(op)) is not None}
    (attend,) = (op for op in program.ops if isinstance(op, Attend))
    assert attend.far_q is not None
    near, far = writers[attend.q.id], writers[attend.far_q.id]
    assert isinstance(near, Join)
    assert isinstance(far, Join)
    assert far.x == near.x
    turned = writers[far.y.id]
    assert isinstance(turned, Rope)
    assert turned.rope_table == "default, at most 63"


def test_what_makes_q_and_k_is_of_their_class_and_what_heads_results_become_of_the_output() -> None:
    program = latent(Latent(3, 1, VOCAB, narrow=32))
    classes: dict[str, OpClass] = {
        op.weight.name: name
        for op, name in zip(program.ops, classify(program), strict=True)
        if isinstance(op, Linear | HeadLinear)
    }
    qkv = ("q_a", "q", "k_b", "q_turned", "kv", "k_turned")
    assert classes == {
        **{f"0.{name}": "qkv" for name in qkv}, "0.v_b": "output", "0.o": "output"
    }  # fmt: skip
