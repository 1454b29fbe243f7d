"""What keys say of experts: which are read, what architectures mean by silence, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from octavo.errors import ModelFormatError, UnsupportedModelError
from octavo.model.mixture import Mixture
from octavo.model.recurrent import ARCHITECTURES
from tests.weights.read_keys import read

FEW: dict[str, Any] = {"expert_count": 4, "expert_used_count": 2}
ALL = (True,) * 3


def mixture_of(*tensors: str, arch: str = "llama", **keys: Any) -> Mixture:
    found = read(*tensors, arch=arch, **FEW | keys)
    assert found.unsupported == ""
    assert found.mixture is not None
    return found.mixture


def test_each_architecture_weighs_a_rows_experts_in_its_own_way() -> None:
    chosen = Mixture(4, 2, 96, ALL, score="softmax_of_chosen")
    assert mixture_of() == mixture_of(arch="granitemoe") == chosen
    assert mixture_of(arch="qwen3moe") == Mixture(4, 2, 96, ALL, renormalised=True)
    assert mixture_of(arch="olmoe") == Mixture(4, 2, 96, ALL)


def test_experts_may_have_a_size_of_their_own_and_an_mlp_beside_them() -> None:
    sizes = {"expert_feed_forward_length": 64, "expert_shared_feed_forward_length": 80}
    assert mixture_of(arch="granitemoe", **sizes).ffn_size == 64
    assert mixture_of(arch="granitemoe", **sizes).shared_ffn_size == 80
    found = read(arch="qwen3moe", **FEW | sizes).unsupported
    assert "expert_shared_feed_forward_length' is 80: only 0 is supported" in found


def test_a_layer_with_one_mlp_and_no_router_has_no_experts() -> None:
    found = mixture_of(
        "blk.0.ffn_gate.weight", "blk.1.ffn_gate.weight", "blk.1.ffn_gate_inp.weight"
    )
    assert found.sparse == (False, True, True)


def test_qkv_are_kept_within_a_limit_where_the_key_says_one() -> None:
    assert read(arch="olmoe", **FEW).qkv_limit == 0
    assert read(arch="olmoe", **FEW, attention__clamp_kqv=8.0).qkv_limit == 8


WITH_EXPERTS: dict[str, Any] = {  # what llama.cpp's own writer adds
    "expert_shared_count": 0, "expert_weights_scale": 0.0, "leading_dense_block_count": 0,
    "expert_weights_norm": False, "expert_gating_func": 1, "expert_group_count": 0,
    "expert_group_used_count": 0,
}  # fmt: skip


@pytest.mark.parametrize("arch", ["llama", "qwen3moe", "olmoe", "granitemoe"])
def test_keys_that_say_what_is_done_are_passed_over(arch: str) -> None:
    assert mixture_of(arch=arch, **WITH_EXPERTS) == mixture_of(arch=arch)


@pytest.mark.parametrize(
    ("key", "value", "only"),
    [
        ("expert_gating_func", 2, "0 or 1"),
        ("expert_group_count", 4, "0 or 1"),
        ("expert_group_used_count", 2, "0 or 1"),
        ("expert_shared_count", 1, "0"),
        ("expert_weights_norm", True, "False"),
        ("expert_weights_scale", 2.5, "0 or 1"),
        ("router_logit_softcapping", 30.0, "0"),
    ],
)
def test_keys_that_say_otherwise_are_refused_by_name(key: str, value: Any, only: str) -> None:
    found = read(arch="olmoe", **FEW | {key: value}).unsupported
    assert found.startswith(f"metadata 'olmoe.{key}' is {value}: only {only} is supported")


@pytest.mark.parametrize(
    ("arch", "changes", "said"),
    [
        ("llama", {"expert_used_count": 0}, "expert_used_count': expected 1 to 4, the experts th"),
        ("llama", {"expert_used_count": 5}, "expert_used_count': expected 1 to 4, the experts th"),
        ("llama", {"expert_count": 2**20}, "expert_count': expected a whole number from 1 to 1024"),
        ("olmoe", {"expert_count": 0}, "expert_count': expected a whole number from 1 to 1024, fo"),
        ("qwen3moe", {"expert_used_count": "2"}, "expert_used_count': expected a whole number"),
    ],
)
def test_numbers_that_cannot_be_are_refused_by_key(
    arch: str, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelFormatError, match=said):
        read(arch=arch, **FEW | changes)


def test_experts_of_a_family_that_has_none_are_refused() -> None:
    found = read(arch="qwen3", **FEW).unsupported
    assert found.startswith("metadata 'qwen3.expert_count' is 4: only 0 is supported")


@pytest.mark.parametrize("key", ["feed_forward_length", "expert_feed_forward_length"])
def test_sizes_that_kernels_cannot_cut_are_refused_by_key(key: str) -> None:
    found = read(**FEW | {key: 80}).unsupported
    assert found == f"metadata 'llama.{key}' is 80: experts are run whose sizes are multiples of 32"


@pytest.mark.parametrize("arch", sorted(ARCHITECTURES))
def test_recurrent_models_are_told_why(arch: str) -> None:
    with pytest.raises(UnsupportedModelError, match="Octavo keeps no recurrent state yet"):
        read(arch=arch, attention__layer_norm_rms_epsilon="none")
