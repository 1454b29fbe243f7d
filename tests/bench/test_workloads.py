"""What a token of each workload takes, against sums made by hand."""

from __future__ import annotations

import pytest

from octavo.bench.workloads import Sizes, batch_cost, decode_cost, prefill_cost, random_prompt
from octavo.kernels import KV_FORMATS
from octavo.model import llama
from octavo.model.config import ModelConfig
from octavo.program.cost import uniform_weights
from octavo.program.kv_bytes import PageFormats

CONFIG = ModelConfig(
    architecture="llama", num_layers=2, hidden_size=64, ffn_size=96, heads=4, kv_heads=2,
    head_dim=16, vocab_size=258, context=2048, norm_eps=1e-5, rope_base=1e4, rotary_dim=16,
    rope_style="half", tied_head=True, qkv_bias=False,
)  # fmt: skip
PROGRAM = llama.build(CONFIG)
BF16 = KV_FORMATS["bf16"]
SIZES = Sizes(PROGRAM, uniform_weights(PROGRAM, 8), formats=PageFormats.everywhere(BF16))
BLOCKS = 2 * (64 * (64 + 2 * 32 + 64 + 3 * 96) + 2 * 64) + 64  # layers, their norms, the last norm
TABLE = 258 * 64
KV = 2 * 2 * 32 * 2  # layers, K and V, width, bytes


def test_a_decoded_token_reads_every_weight_and_the_kv_before_it() -> None:
    # Tokens 2, 3 and 4 of the answer are steps, each with one row of the table, the head,
    # 101, 102 and 103 tokens of KV read and one written.
    found = decode_cost(SIZES, context=100, tokens=4)
    assert found.bytes_per_token == BLOCKS + 64 + TABLE + KV * (102 + 1)


def test_streams_share_the_weights_of_a_step_and_nothing_else() -> None:
    one, four = decode_cost(SIZES, 100, 4), batch_cost(SIZES, 4, context=100, tokens=4)
    assert four.bytes_per_token == pytest.approx((BLOCKS + TABLE) / 4 + 64 + KV * (102 + 1))
    assert four.ops_per_token == one.ops_per_token
    assert batch_cost(SIZES, 1, 100, 4) == one


def test_a_prompt_reads_the_weights_once_for_each_step_it_takes() -> None:
    whole = prefill_cost(SIZES, context=100, rows_a_step=512)
    assert whole.bytes_per_token == pytest.approx((BLOCKS + 100 * 64 + TABLE + KV * 200) / 100)
    split = prefill_cost(SIZES, context=100, rows_a_step=64)
    assert split.bytes_per_token == pytest.approx(
        (2 * BLOCKS + 100 * 64 + TABLE + KV * (64 + 64 + 100 + 36)) / 100
    )
    assert split.ops_per_token == whole.ops_per_token


def test_prompts_repeat_for_a_seed_and_differ_between_rounds() -> None:
    assert random_prompt(258, 50, 1) == random_prompt(258, 50, 1)
    assert random_prompt(258, 50, 1) != random_prompt(258, 50, 2)
    assert set(random_prompt(2, 50, 3)) == {0, 1}
