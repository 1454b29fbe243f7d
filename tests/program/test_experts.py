"""Experts: the native interpreter against the reference, rows alone against rows together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from octavo.batch import Asked, Want, make_batch
from octavo.engine.runner import Runner
from octavo.kernels import KV_FORMATS, native
from octavo.planning.experts import active_bytes
from octavo.program.builder import ProgramBuilder
from octavo.program.cost import Work, cost, experts_read, uniform_weights
from octavo.program.experts import routed
from octavo.program.kv_bytes import PageFormats
from octavo.program.ops import Experts, GateKind, KVSpec, Route, RouteScore, WeightSpec
from octavo.program.program import Program
from octavo.weights.ggml_type import GGMLType
from octavo.weights.model_weights import ModelWeights
from tests.kernels.gguf_blocks import OWN_FORMAT
from tests.program.one_sequence import check_near, reference_logits, tokens_of
from tests.program.parts import make_parts
from tests.tiny import TinyModel, all_logits, make_runner, random_model

POOL = native.ThreadPool(2)
VOCAB, WIDTH = 40, 256  # of rows, and between an expert's matrices
TOKENS = tokens_of(VOCAB)


def program(
    experts: int = 6,
    used: int = 2,
    *,
    score: RouteScore = "softmax",
    scale: float = 1.0,
    activation: GateKind = "silu",
    added: bool = True,
    biased: bool = False,
    groups: int = 1,
    size: int = WIDTH,
    expert_biases: str = "",
) -> Program:
    """`expert_biases` names the matrices that have some."""
    p = ProgramBuilder(rope_frequencies=[1.0, 0.1])
    group = p.kv_group(KVSpec(1, 32, 32))
    h = p.embed(WeightSpec("table", (VOCAB, size)))
    for i in range(2):
        x = p.rms_norm(h, None, 1e-5)
        q, k, v = (
            p.linear(x, WeightSpec(f"{i}.{name}", (rows, size)))
            for name, rows in (("q", size), ("k", 32), ("v", 32))
        )
        q = p.rope(q, heads=size // 32, style="half")
        a = p.attention(q, k, v, heads=size // 32, group=group, scale=0.25)
        h = p.linear(a, WeightSpec(f"{i}.o", (size, size)), add=h)
        x = p.rms_norm(h, None, 1e-5)
        bias = WeightSpec(f"{i}.bias", (experts,)) if biased else None
        route = p.route(
            p.linear(x, WeightSpec(f"{i}.router", (experts, size))), used=used, score=score,
            renormalise=score != "softmax", scale=scale, choice_bias=bias, groups=groups,
            groups_used=max(1, groups // 2),
        )  # fmt: skip
        gate, up = (WeightSpec(f"{i}.{name}", (experts * size, size)) for name in ("gate", "up"))
        down = WeightSpec(f"{i}.down", (experts * size, size))
        gate_bias, up_bias, down_bias = (
            WeightSpec(f"{spec.name}_bias", spec.shape[:1])
            if spec.name.split(".")[1] in expert_biases.split() else None
            for spec in (gate, up, down)
        )  # fmt: skip
        made = p.experts(
            x, route, gate, up, down, experts=experts, activation=activation, scale=0.5,
            add=h if added else None, biases=(gate_bias, up_bias, down_bias),
        )  # fmt: skip
        h = made if added else p.add(made, h)
    return p.logits(p.rms_norm(h, None, 1e-5), WeightSpec("head", (VOCAB, size)))


PROGRAMS: dict[str, Program] = {
    "two of six": program(),
    "one of six": program(used=1),
    "all": program(4, 4),
    "one there is": program(1, 1),
    "more than rows": program(100, 3),
    "chosen first": program(score="softmax_of_chosen"),
    "sigmoid, scaled": program(score="sigmoid", scale=2.5),
    "a choice bias": program(score="sigmoid", biased=True),
    "groups": program(12, groups=4),
    "groups and a bias": program(12, score="sigmoid", biased=True, groups=4),
    "gelu, nothing added": program(activation="gelu_tanh", added=False),
    "clamped gates": program(activation="clamped_glu"),
    "biases": program(expert_biases="gate up down", activation="clamped_glu"),
    "biases of up": program(expert_biases="up"),
    "biases of gate and down": program(4, 4, expert_biases="gate down", added=False),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_float32_weights_equal_the_reference(name: str) -> None:
    model = random_model(PROGRAMS[name], POOL, type=GGMLType.F32)
    for rows in (1, 5, 70):
        got = all_logits(make_runner(model, POOL, kv_dtype="f32"), TOKENS[:rows])
        check_near(got, reference_logits(model.program, model.exact, TOKENS[:rows]))


def mixed_types(program: Program, types: dict[str, GGMLType]) -> TinyModel:
    """Weights of a type by the last part of their name; routers are float32."""
    models = {type: random_model(program, POOL, type=type) for type in {*types.values()}}
    plain = random_model(program, POOL, type=GGMLType.F32)
    of = {name: models[types[name.split(".")[-1]]] if name.split(".")[-1] in types else plain
          for name in program.weights()}  # fmt: skip
    matrices = {name: of[name].weights.matrices[name] for name in plain.weights.matrices}
    exact = {name: model.exact[name] for name, model in of.items()}
    return TinyModel(program, ModelWeights(matrices, plain.weights.vectors), exact)


BF16 = KV_FORMATS["bf16"]
EXPERTS = ("gate", "up", "down")


@pytest.mark.parametrize("type", OWN_FORMAT)
def test_integer_experts_follow_the_reference_with_rounded_rows(type: GGMLType) -> None:
    # Of all weights the experts alone are integers, and one layer in: rounding the rows of others
    # would turn a choice.
    model = mixed_types(PROGRAMS["two of six"], dict.fromkeys(EXPERTS, type))
    got = all_logits(make_runner(model, POOL, kv_dtype="f32"), TOKENS)
    want = reference_logits(model.program, model.exact, TOKENS)
    error = np.sqrt(np.mean((got - want) ** 2)) / want.std()
    assert error < 0.05  # of rows' int8; a wrong expert or an exchanged matrix gives 1


def test_gate_up_and_down_may_be_of_formats_that_read_other_rows() -> None:
    types = {"gate": GGMLType.Q4_1, "up": GGMLType.BF16, "down": GGMLType.F32}
    model = mixed_types(PROGRAMS["two of six"], types)
    got = all_logits(make_runner(model, POOL, kv_dtype="f32"), TOKENS)
    want = reference_logits(model.program, model.exact, TOKENS)
    assert np.sqrt(np.mean((got - want) ** 2)) / want.std() < 0.05


ROWS_OF = {
    "two of six": [GGMLType.F32, GGMLType.BF16, GGMLType.Q4_1, GGMLType.Q6_K],
    "biases": [GGMLType.BF16, GGMLType.MXFP4],
}


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(("name", "type"), [(name, t) for name in ROWS_OF for t in ROWS_OF[name]])
def test_a_row_does_not_know_who_meets_its_experts_beside_it(
    name: str, type: GGMLType, threads: int
) -> None:
    pool = native.ThreadPool(threads)
    model = random_model(PROGRAMS[name], POOL, type=type)
    runner = make_runner(model, pool, max_rows=300)
    rng = np.random.default_rng(4)
    sequences = [rng.integers(0, VOCAB, length).tolist() for length in (1, 7, 40, 2, 130, 5)]
    together = logits_of(runner, sequences)
    for tokens, got in zip(sequences, together, strict=True):
        (alone,) = logits_of(runner, [tokens])
        assert np.array_equal(got, alone)
        size = len(tokens)  # one by one, or where they are many by a few
        cuts = range(1, size) if size < 10 else (1, 2, size // 3, size - 1)
        assert np.array_equal(got, all_logits(runner, tokens, cuts=cuts))


def logits_of(runner: Runner, sequences: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
    tables = [[[8 * i + block for block in range(8)] for i in range(len(sequences))]]
    rows = sum(map(len, sequences))
    wants = [Asked(Want.LOGITS)] * rows
    batch = make_batch([(tokens, 0) for tokens in sequences], tables, range(rows), wants)
    logits = runner.run(batch).logits
    return np.split(logits, np.cumsum([len(tokens) for tokens in sequences])[:-1])


def test_a_row_with_a_nan_spoils_no_other() -> None:
    model = random_model(PROGRAMS["two of six"], POOL, type=GGMLType.F32)
    runner = make_runner(model, POOL)
    (want,) = logits_of(runner, [[1, 2, 3]])
    table = model.exact["table"].copy()
    table[7] = np.nan
    model.weights.matrices["table"] = native.pack_weight(
        POOL, table.view(np.uint8).reshape(-1), int(GGMLType.F32), VOCAB, WIDTH, "F32"
    )
    spoilt, got = logits_of(make_runner(model, POOL), [[7], [1, 2, 3]])
    assert np.isnan(spoilt).all()
    assert np.array_equal(got, want)


REFUSED: dict[str, tuple[str, str, object, str]] = {
    "no expert": ("Route", "experts", 0, "experts: expected 1 to 1024, got 0"),
    "too many": ("Route", "experts", 1025, "experts: expected 1 to 1024, got 1025"),
    "other experts": ("Route", "experts", 8, "x width: expected 8, got 6"),
    "none used": ("Route", "used", 0, "used: expected 1 to 6, got 0"),
    "all and more used": ("Route", "used", 7, "used: expected 1 to 6, got 7"),
    "another used": ("Route", "used", 3, "out width: expected 6, got 4"),
    "groups": ("Route", "expert_groups", 4, "experts, modulo expert_groups: expected 0, got 2"),
    "groups used": ("Route", "groups_used", 2, "groups_used: expected 1 to 1, got 2"),
    "score": ("Route", "score", 3, "score: expected 0 to 2, got 3"),
    "renormalise": ("Route", "renormalise", 2, "renormalise: expected 0 to 1, got 2"),
    "factor": ("Route", "scale", np.nan, "scale: expected a finite number"),
    "bias": ("Route", "vector", [99] * 5, "vector: expected 0 to"),
    "experts of a route": ("Experts", "experts", 1025, "experts: expected 1 to 1024, got 1025"),
    "fewer experts": ("Experts", "experts", 5, "matrix rows: expected 1280, got 1536"),
    "route": ("Experts", "used", 3, "y width: expected 6, got 4"),
    "matrix": ("Experts", "matrix", [0, 0, 0], "matrix rows: expected 1536, got 40"),
    "kind of rows": ("Experts", "row_kind", [0, 0, 2], "row kind: expected 0, got 2"),
    "activation": ("Experts", "activation", 9, "activation: expected 0 to 4, got 9"),
    "bias of an expert": ("Experts", "vector", [0, 99, -1, -1, -1], "vector: expected 0 to"),
    "what is added": ("Experts", "add", 99, "add: expected 0 to"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_program_that_would_leave_its_arrays_is_refused(name: str) -> None:
    op, field, value, message = REFUSED[name]
    parts = make_parts(model=random_model(PROGRAMS["two of six"], POOL, type=GGMLType.Q4_1))
    parts.records[field][parts.ops.index(op)] = value
    with pytest.raises(ValueError, match=message):
        parts.build()


def test_groups_of_one_expert_have_no_best_two() -> None:
    made = program(12, score="sigmoid", biased=True, groups=4)
    parts = make_parts(model=random_model(made, POOL, type=GGMLType.Q4_1))
    for field in ("expert_groups", "groups_used"):
        parts.records[field][parts.ops.index("Route")] = 12
    with pytest.raises(ValueError, match="experts of a group, beside a bias: expected 2 to 12, go"):
        parts.build()


def test_a_row_whose_scores_are_all_0_adds_nothing_of_its_experts() -> None:
    made = PROGRAMS["sigmoid, scaled"]
    route = next(op for op in made.ops if isinstance(op, Route))
    logits = np.full((2, 6), -200, np.float32)
    assert routed(route, logits, None).tolist() == [[0, 1, 0, 0]] * 2


def test_more_rows_of_experts_than_are_counted_are_refused() -> None:
    model = random_model(program(128, 128, size=32), POOL, type=GGMLType.Q4_1)
    parts = make_parts(model=model)
    parts.max_rows = 2**24
    with pytest.raises(ValueError, match="used x max_rows: expected 1 to 2147483641, got 21474836"):
        parts.build()


def test_equal_experts_are_one_that_is_dense() -> None:
    used = program(8, 2, score="softmax_of_chosen")
    model = random_model(used, POOL, type=GGMLType.F32)
    exact = dict(model.exact)
    for name, value in exact.items():
        if name.split(".")[-1] in EXPERTS:
            first = value.reshape(8, -1, value.shape[1])[:1]
            exact[name] = np.ascontiguousarray(np.repeat(first, 8, 0).reshape(value.shape))
    one = program(1, 1, score="softmax_of_chosen")
    dense = {
        name: value[: one.weights()[name].shape[0]] if name in one.weights() else value
        for name, value in exact.items()
    }
    check_near(reference_logits(used, exact, TOKENS), reference_logits(one, dense, TOKENS), 1e-6)


def test_cost_counts_the_experts_that_rows_meet() -> None:
    assert experts_read(64, 8, 1) == pytest.approx(8)
    assert 55 < experts_read(64, 8, 16) < 57
    made = program(100, 3)
    sizes = uniform_weights(made, 8)
    whole = sum(sizes[f"0.{name}"] for name in EXPERTS)
    for rows, share in ((1, 3 / 100), (100_000, 1)):
        costs = cost(made, Work(rows), weight_bytes=sizes, formats=PageFormats.everywhere(BF16))
        for op, found in zip(made.ops, costs, strict=True):
            if isinstance(op, Experts):
                assert found.weight_bytes == pytest.approx(share * whole)
                per_row = 3 * (6 * WIDTH + 4) * WIDTH  # and what sums up
                assert found.flops == pytest.approx(rows * per_row, rel=0.01)


@pytest.mark.parametrize("name", ["two of six", "biases"])
def test_what_a_row_reads_is_what_its_ops_are_counted_with(name: str) -> None:
    made = PROGRAMS[name]
    sizes = uniform_weights(made, 8)
    costs = cost(made, Work(1), weight_bytes=sizes, formats=PageFormats.everywhere(BF16))
    read = sum(each.weight_bytes for each in costs if each.op_class != "embed")
    assert active_bytes(made, sizes) == pytest.approx(read + sizes["table"])
