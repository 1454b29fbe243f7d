"""The cost interpreter against formulas derived by hand from the shapes, for MHA, GQA and MQA."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.kernels import KV_FORMATS, KVFormat
from octavo.model import llama
from octavo.model.config import ModelConfig
from octavo.program.builder import ProgramBuilder
from octavo.program.classes import CLASSES, OpClass, classify
from octavo.program.cost import (
    OpCost,
    Work,
    by_class,
    cost,
    decode,
    prefill,
    uniform_weights,
)
from octavo.program.kv_bytes import PageFormats, kv_bytes_per_token
from octavo.program.ops import KVSpec, Linear, WeightSpec
from octavo.program.program import Program
from tests.exactness.programs import Grouped, grouped, windowed

MHA = ModelConfig(
    architecture="llama", num_layers=3, hidden_size=128, ffn_size=160, heads=8, kv_heads=8,
    head_dim=16, vocab_size=500, context=2048, norm_eps=1e-5, rope_base=1e4, rotary_dim=16,
    rope_style="half", tied_head=True, qkv_bias=False,
)  # fmt: skip
GQA = replace(MHA, kv_heads=2)
BF16, F32 = KV_FORMATS["bf16"], KV_FORMATS["f32"]
ALL = {
    "mha": MHA, "gqa": GQA, "mqa": replace(MHA, kv_heads=1),
    "untied": replace(MHA, tied_head=False, kv_heads=4),
    "heads * head_dim != hidden": replace(MHA, kv_heads=2, head_dim=32, rotary_dim=12),
    "biased": replace(MHA, qkv_bias=True, kv_heads=2),
}  # fmt: skip
every_config = pytest.mark.parametrize("cfg", ALL.values(), ids=ALL)


def costs_of(
    program: Program, work: Work, *, bits: float = 8, v_format: KVFormat = BF16
) -> dict[OpClass, OpCost]:
    weights = uniform_weights(program, bits)
    return by_class(
        cost(program, work, weight_bytes=weights, formats=PageFormats.everywhere(BF16, v_format))
    )


def costs(cfg: ModelConfig, work: Work, *, bits: float = 8) -> dict[OpClass, OpCost]:
    return costs_of(llama.build(cfg), work, bits=bits)


@every_config
@pytest.mark.parametrize(("rows", "past"), [(1, 0), (1, 99), (100, 0), (7, 30)])
def test_flops_are_the_formulas_of_a_transformer(cfg: ModelConfig, rows: int, past: int) -> None:
    # L layers of width h, q of width a = heads * d, k and v of width c = kv_heads * d, FFN of f.
    layers, h, f, d = cfg.num_layers, cfg.hidden_size, cfg.ffn_size, cfg.head_dim
    a, c, s = cfg.heads * d, cfg.kv_heads * d, rows
    scores = sum(past + r + 1 for r in range(rows))  # causal: row r sees past + r + 1 tokens
    bias = s * (a + 2 * c) if cfg.qkv_bias else 0
    rope = 3 * s * (cfg.heads + cfg.kv_heads) * cfg.rotary_dim

    got = costs(cfg, Work(rows, past))
    assert got["qkv"].flops == layers * (2 * s * h * (a + 2 * c) + bias + rope)
    assert got["attention"].flops == layers * scores * (4 * a + 3 * cfg.heads)
    assert got["output"].flops == layers * (2 * s * a * h + s * h)  # and the residual
    assert got["mlp"].flops == layers * (3 * 2 * s * h * f + 4 * s * f + s * h)
    assert got["norm"].flops == (2 * layers + 1) * 4 * s * h
    assert got["head"].flops == 2 * h * cfg.vocab_size  # one row asks
    assert got["embed"].flops == 0


@every_config
def test_weight_and_kv_bytes_are_read_once_a_forward(cfg: ModelConfig) -> None:
    layers, h, f, v = cfg.num_layers, cfg.hidden_size, cfg.ffn_size, cfg.vocab_size
    a, c = cfg.heads * cfg.head_dim, cfg.kv_heads * cfg.head_dim
    rows, past, kv = 5, 11, 2 * c * 2  # K and V of a layer's token, 16 bits each

    got = costs(cfg, Work(rows, past), bits=4)
    assert got["qkv"].weight_bytes == layers * (h + cfg.qkv_bias) * (a + 2 * c) / 2
    assert got["output"].weight_bytes == layers * a * h / 2
    assert got["mlp"].weight_bytes == layers * 3 * h * f / 2
    assert got["norm"].weight_bytes == (2 * layers + 1) * h / 2
    assert got["head"].weight_bytes == h * v / 2  # the same whether tied or not
    assert got["embed"].weight_bytes == rows * h / 2  # a row of the table for each token
    assert got["attention"].kv_read_bytes == layers * (rows + past) * kv
    assert got["attention"].kv_write_bytes == layers * rows * kv
    assert [n for n in CLASSES if got[n].kv_read_bytes] == ["attention"]


def test_activations_are_what_each_op_reads_and_writes() -> None:
    got = costs(GQA, Work(rows=5))
    a, c, h, f = 128, 32, 128, 160
    assert got["embed"].activation_bytes == 4 * 5 * h
    assert got["qkv"].activation_bytes == 4 * 5 * 3 * (h + a + 2 * (h + c) + 2 * a + 2 * c)
    assert got["attention"].activation_bytes == 4 * 5 * 3 * (2 * c + 2 * a)
    assert got["output"].activation_bytes == 4 * 5 * 3 * (a + 2 * h)
    assert got["mlp"].activation_bytes == 4 * 5 * 3 * (2 * (h + f) + 3 * f + f + 2 * h)
    assert got["head"].activation_bytes == 4 * (h + 500)


def test_a_cached_decode_step_saves_the_context_in_projections_and_mlp_alike() -> None:
    with_cache = costs(GQA, decode(1024, cache=True))
    without = costs(GQA, decode(1024, cache=False))
    for name in ("qkv", "output", "mlp", "norm"):
        assert without[name].flops == 1024 * with_cache[name].flops
    # Every token's own scores, against those of the last one: (1 + ... + n) / n = (n + 1) / 2.
    assert without["attention"].flops == with_cache["attention"].flops * 1025 / 2
    assert without["head"].flops == with_cache["head"].flops
    assert without["attention"].kv_read_bytes == with_cache["attention"].kv_read_bytes


def test_prefill_is_every_row_once_and_one_row_of_logits() -> None:
    assert costs(MHA, prefill(64)) == costs(MHA, decode(64, cache=False))
    assert costs(MHA, Work(rows=64, output_rows=0))["head"].bytes == 0


def test_chunks_of_a_prefill_add_up_to_the_whole() -> None:
    whole = costs(GQA, Work(100))
    parts = [costs(GQA, Work(40, 0, 0)), costs(GQA, Work(60, 40, 1))]
    for name in CLASSES:
        assert sum(p[name].flops for p in parts) == whole[name].flops
        assert sum(p[name].kv_write_bytes for p in parts) == whole[name].kv_write_bytes


@given(rows=st.integers(1, 40), past=st.integers(0, 40), window=st.integers(0, 90))
def test_scores_and_tokens_seen_match_counting_them(rows: int, past: int, window: int) -> None:
    places = range(past, past + rows)
    seen = [{k for k in range(row + 1) if not window or row - k < window} for row in places]
    work = Work(rows, past)
    assert work.scores(window) == sum(map(len, seen))
    assert work.tokens_seen(window) == len(set.union(*seen))


def test_kv_bytes_per_token_of_known_models() -> None:
    seven_b = replace(MHA, num_layers=32, heads=32, kv_heads=32, head_dim=128, rotary_dim=128)
    smollm2 = replace(MHA, num_layers=30, heads=9, kv_heads=3, head_dim=64, rotary_dim=64)
    assert kv_bytes_per_token(llama.build(seven_b), PageFormats.everywhere(BF16)) == 2**19
    assert kv_bytes_per_token(llama.build(smollm2), PageFormats.everywhere(BF16)) == 23040
    assert kv_bytes_per_token(llama.build(smollm2), PageFormats.everywhere(F32, BF16)) == 34560


def test_weights_of_llama_7b_are_6_74_billion() -> None:
    cfg = replace(
        MHA, num_layers=32, hidden_size=4096, ffn_size=11008, heads=32, kv_heads=32, head_dim=128,
        rotary_dim=128, vocab_size=32000, tied_head=False,
    )  # fmt: skip
    assert sum(uniform_weights(llama.build(cfg), 8).values()) == 6_738_415_616


def test_a_norm_of_each_query_and_k_stored_as_v_are_understood() -> None:
    """Qwen3 norms q so, before rotating it."""
    p = ProgramBuilder(rope_frequencies=(1.0, 0.5))
    group = p.kv_group(KVSpec(1, 8, 8, window=16))
    h = p.embed(WeightSpec("table", (32, 8)))
    q = p.rms_norm(p.linear(h, WeightSpec("w1", (8, 8))), WeightSpec("n1", (8,)), 1e-5)
    q = p.rope(q, heads=1, style="half")
    k = p.linear(h, WeightSpec("w2", (8, 8)))
    a = p.attention(q, k, k, heads=1, group=group, scale=1.0)
    program = p.logits(p.linear(a, WeightSpec("w3", (8, 8))), WeightSpec("head", (32, 8)))

    classes = zip(program.ops, classify(program), strict=True)
    assert [c for op, c in classes if isinstance(op, Linear)] == ["qkv", "qkv", "output"]
    step = costs_of(program, Work(1, 99))
    assert step["attention"].flops == 16 * (4 * 8 + 3)
    assert step["attention"].kv_read_bytes == 16 * (8 + 8) * 2  # a window of K and V


def test_a_softcap_costs_three_operations_a_score() -> None:
    plain, capped = (
        costs_of(grouped(Grouped((windowed(16),), 1, 32, softcap=softcap)), Work(1, 99))
        for softcap in (0.0, 50.0)
    )
    assert capped["attention"].flops - plain["attention"].flops == 16 * 2 * 3


def test_slopes_cost_two_operations_a_score() -> None:
    plain, raised = (
        costs_of(grouped(Grouped((windowed(16),), 1, 32, slopes=slopes)), Work(1, 99))
        for slopes in ("", "plain")
    )
    assert raised["attention"].flops - plain["attention"].flops == 16 * 2 * 2


def test_k_and_v_of_different_widths_are_counted_apart() -> None:
    p = ProgramBuilder(rope_frequencies=(1.0, 0.5))
    group = p.kv_group(KVSpec(2, 8, 4))
    h = p.embed(WeightSpec("table", (32, 16)))
    q, k = (p.linear(h, WeightSpec(name, (rows, 16))) for name, rows in (("q", 32), ("k", 16)))
    v = p.linear(h, WeightSpec("v", (8, 16)))
    a = p.attention(q, k, v, heads=4, group=group, scale=1.0)
    program = p.logits(p.linear(a, WeightSpec("o", (16, 16))), WeightSpec("head", (32, 16)))
    step = costs_of(program, Work(1, 9), v_format=F32)
    assert step["attention"].flops == 10 * 4 * (2 * 8 + 2 * 4 + 3)
    assert step["attention"].kv_read_bytes == 10 * 2 * (8 * 2 + 4 * 4)
