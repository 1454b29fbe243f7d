"""The orders in which families store q, k, v and gate, up, against how transformers takes them
apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from octavo.model.config import ModelConfig
from octavo.model.mixture import Mixture
from octavo.weights.ggml_type import GGMLType
from octavo.weights.gguf_header import TensorInfo
from octavo.weights.weight_orders import (
    expert_stacks,
    gate_up_in_turn,
    qkv_by_group,
    qkv_in_turn,
    transposed,
)
from octavo.weights.weight_view import Views, view_of
from tests.tiny import TINY

QKV = ("attn_q", "attn_k", "attn_v")
Floats = NDArray[np.float32]
CONFIGS = [
    replace(TINY, heads=heads, kv_heads=kv_heads, head_dim=6, rotary_dim=6)
    for heads, kv_heads in ((6, 2), (5, 1), (4, 4))
]


def read(views: Views, part: str, tensor: Floats, *, kind: str = "weight") -> Floats:
    view = view_of(views, f"blk.0.{part}.{kind}")
    assert view.tensor in (f"blk.0.attn_qkv.{kind}", f"blk.0.ffn_up.{kind}")
    info = TensorInfo(view.tensor, tensor.shape, GGMLType.F32, 0, tensor.nbytes)
    _, data = view.read(info, np.ascontiguousarray(tensor).view(np.uint8).reshape(-1))
    cols = () if kind == "bias" else (7,)
    values: Floats = data.view(np.float32).reshape(-1, *cols)
    assert view.tensor_shape(values.shape) == tensor.shape
    return values


def fused(cfg: ModelConfig) -> Floats:
    rows = (cfg.heads + 2 * cfg.kv_heads) * cfg.head_dim
    return np.arange(rows * 7, dtype=np.float32).reshape(rows, 7)


@pytest.mark.parametrize("cfg", CONFIGS)
def test_in_turn_as_phi3_and_gpt2_split_them(cfg: ModelConfig) -> None:
    tensor, q, kv = fused(cfg), cfg.heads * cfg.head_dim, cfg.kv_heads * cfg.head_dim
    want = dict(zip(QKV, np.split(tensor, (q, q + kv)), strict=True))
    views = qkv_in_turn(cfg)
    for part in QKV:
        assert np.array_equal(read(views, part, tensor), want[part])
        bias = read(views, part, tensor[:, 0].copy(), kind="bias")
        assert np.array_equal(bias, want[part][:, 0])
    conv1d = transposed(views, *QKV)
    for part in QKV:
        assert np.array_equal(read(conv1d, part, tensor.T), want[part])
        assert np.array_equal(
            read(conv1d, part, tensor[:, 0].copy(), kind="bias"), want[part][:, 0]
        )


@pytest.mark.parametrize("cfg", CONFIGS)
def test_by_group_as_falcon_splits_them(cfg: ModelConfig) -> None:
    """As new_decoder_architecture; one KV head is multi_query, as many as heads the first one."""
    tensor, d = fused(cfg), cfg.head_dim
    groups = tensor.reshape(cfg.kv_heads, cfg.heads // cfg.kv_heads + 2, d, 7)
    want = {"attn_q": groups[:, :-2], "attn_k": groups[:, -2], "attn_v": groups[:, -1]}
    views = qkv_by_group(cfg)
    for part in QKV:
        assert np.array_equal(read(views, part, tensor), want[part].reshape(-1, 7))
        bias = read(views, part, tensor[:, 0].copy(), kind="bias")
        assert np.array_equal(bias, want[part][..., 0].reshape(-1))


def test_with_one_kv_head_the_two_orders_are_one() -> None:
    tensor = fused(CONFIGS[1])
    for part in QKV:
        in_turn, by_group = (f(CONFIGS[1]) for f in (qkv_in_turn, qkv_by_group))
        assert np.array_equal(read(in_turn, part, tensor), read(by_group, part, tensor))


def test_by_head_as_starcoder_splits_them_without_multi_query() -> None:
    tensor, cfg = fused(CONFIGS[2]), CONFIGS[2]
    heads = np.split(tensor.reshape(cfg.heads, 3 * cfg.head_dim, 7), 3, axis=1)
    for part, want in zip(QKV, heads, strict=True):
        assert np.array_equal(read(qkv_by_group(cfg), part, tensor), want.reshape(-1, 7))


def test_the_gate_stands_before_up() -> None:
    tensor = np.arange(2 * TINY.ffn_size * 7, dtype=np.float32).reshape(-1, 7)
    gate, up = np.split(tensor, 2)
    views = gate_up_in_turn(TINY)
    assert np.array_equal(read(views, "ffn_gate", tensor), gate)
    assert np.array_equal(read(views, "ffn_up", tensor), up)


def one_tensor(name: str) -> dict[str, TensorInfo]:
    return {name: TensorInfo(name, (2, 32, 32), GGMLType.F32, 0, 8192)}


def test_experts_lie_in_three_ways() -> None:
    cfg = replace(TINY, mixture=Mixture(2, 1, 32, (True,) * TINY.num_layers))
    assert expert_stacks(TINY, one_tensor("blk.0.ffn_gate_exps.weight")) == {}
    one = expert_stacks(cfg, one_tensor("blk.1.ffn_down.1.weight"))
    assert one["ffn_down_exps"].tensors == ("ffn_down.0", "ffn_down.1")
    apart = expert_stacks(cfg, one_tensor("blk.0.ffn_gate_exps.weight"))
    assert {part: (view.tensor, view.stacked) for part, view in apart.items()} == {
        "ffn_gate_exps": ("", 2), "ffn_up_exps": ("", 2), "ffn_down_exps": ("", 2),
    }  # fmt: skip
    both = expert_stacks(cfg, one_tensor("blk.0.ffn_gate_up_exps.weight"))
    up = both["ffn_up_exps"]
    assert (up.tensor, up.rows) == ("ffn_gate_up_exps", (range(32, 64), range(96, 128)))
    assert both["ffn_gate_exps"].tensor_shape((64, 96)) == (2, 64, 96)
