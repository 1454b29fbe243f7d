"""A key that the config does not read is harmless, has no effect as it stands, or is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo.errors import UnsupportedModelError
from octavo.weights.gguf_header import MetadataValue
from octavo.weights.model_header import read_header
from tests.cli.tiny_model import write_tiny_model
from tests.weights.gguf_bytes import BOOL, entry
from tests.weights.read_keys import SILENT, read

# What llama.cpp's own writer of models puts into every file, beside what the config reads.
WRITTEN_BY_LLAMA_CPP: dict[str, Any] = {
    "leading_dense_block_count": 0, "expert_feed_forward_length": 0, "expert_count": 0,
    "expert_used_count": 0, "expert_shared_count": 0, "expert_weights_scale": 0.0,
    "use_parallel_residual": False, "pooling_type": 2**32 - 1, "logit_scale": 0.0,
    "decoder_start_token_id": -1, "swin_norm": False, "rescale_every_n_layers": 0,
    "time_mix_extra_dim": 0, "time_decay_extra_dim": 0, "residual_scale": 0.0,
    "embedding_scale": 0.0, "attention.max_alibi_bias": 0.0, "attention.clamp_kqv": 0.0,
    "attention.layer_norm_epsilon": 0.0, "attention.causal": True, "attention.q_lora_rank": 0,
    "attention.kv_lora_rank": 0, "attention.relative_buckets_count": 0,
    "attention.sliding_window": 0, "attention.scale": 0.0, "rope.scaling.type": "linear",
    "rope.scaling.factor": 0.0, "rope.scaling.attn_factor": 1.0,
    "rope.scaling.original_context_length": 512, "rope.scaling.finetuned": False,
    "rope.scaling.yarn_log_multiplier": 0.0, "ssm.inner_size": 0, "ssm.conv_kernel": 0,
    "ssm.state_size": 0, "ssm.time_step_rank": 0, "ssm.dt_b_c_rms": False, "wkv.head_size": 0,
}  # fmt: skip


def test_what_llama_cpp_writes_for_nothing_is_nothing() -> None:
    assert read(**WRITTEN_BY_LLAMA_CPP) == SILENT


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tensor_data_layout", "Meta AI original pth"),  # of old converters
        ("attention.sliding_window", 512),  # as long as the context
        ("attention.sliding_window", 4096),
        ("attention.head_dim", 16),  # of Ollama's converter
        ("attention.scale", float(np.float32(16**-0.5))),
        ("logit_scale", 1.0),
        ("residual_scale", np.ones(3, np.float32)),
        ("expert_used_count", 2),  # of no experts
    ],
)
def test_a_key_that_changes_nothing_is_passed_over(key: str, value: Any) -> None:
    assert read(**{key: value}) == SILENT


REFUSED = [
    ("attention.causal", False, "is False: only True is supported; leaving it out would change"),
    ("attention.head_dim", 32, "is 32, other keys say 16: one of them is wrong"),
    ("attention.scale", 0.5, r"is 0.5: only 1/sqrt(head size), 0.25 here, is supported"),
    ("attention.clamp_kqv", 8.0, "is 8.0: only 0 is supported"),
    ("attention.max_alibi_bias", 8.0, "is 8.0: only 0 is supported"),
    ("logit_scale", 0.0625, "is 0.0625: only 0 or 1 is supported"),
    ("residual_scale", 0.22, "is 0.22: only 0 or 1 is supported"),
    ("residual_scale", np.array([1, 0.5]), "is an array of 2 float64: only 0 or 1 is supported"),
    ("embedding_scale", 12.0, "is 12.0: only 0 or 1 is supported"),
    ("final_logit_softcapping", 30.0, "is 30.0: only 0 is supported"),
    ("attn_logit_softcapping", 50.0, "is 50.0: only 0 is supported"),
    ("use_parallel_residual", True, "is True: only False is supported"),
    ("rope.scaling.yarn_attn_factor", 1.2, "is 1.2: only 1 is supported"),
    ("rope.scaling.yarn_beta_fast", 16.0, "is 16.0: only 32 is supported"),
    ("rope.dimension_sections", np.arange(4), "is an array of 4 int64: Octavo does not know"),
    ("rope.freq_base_swa", 1e4, "is 10000.0: Octavo does not know this key"),
    ("rope.swing", 1, "is 1: Octavo does not know this key, and leaving it out could change"),
    ("swing", "x" * 200, "is '" + "x" * 79 + ": Octavo does not know this key"),
]


@pytest.mark.parametrize(("key", "value", "why"), REFUSED)
def test_a_key_that_changes_the_answers_is_refused_by_name(key: str, value: Any, why: str) -> None:
    found = read(**{key: value})
    assert found.unsupported.startswith(f"metadata 'llama.{key}' {why}")
    assert replace(found, unsupported="") == SILENT  # the rest is still shown


def test_an_activation_that_the_family_does_not_have_is_refused() -> None:
    for arch, own, other in (("llama", "silu", "gelu_tanh"), ("gemma3", "gelu_tanh", "silu")):
        assert read(arch=arch, hidden_activation=own).unsupported == ""
        assert f"is {other!r}: only " in read(arch=arch, hidden_activation=other).unsupported


def test_an_unknown_key_may_be_taken_out_of_the_file() -> None:
    assert "`gguf-new-metadata --remove-metadata llama.swing`" in read(swing=1).unsupported


def test_keys_of_other_namespaces_are_nobodys_business() -> None:
    keys: dict[str, MetadataValue] = {"general.swing": 1, "llama4.swing": 1, "mradermacher.x": 1}
    assert read(elsewhere=keys) == SILENT


def test_a_file_that_asks_for_more_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    both_ways = entry("llama.attention.causal", BOOL, b"\0")
    path = write_tiny_model(tmp_path / "bidirectional.gguf", more=[both_ways])
    message = re.escape(f"{path}: metadata 'llama.attention.causal' is False")
    with pytest.raises(UnsupportedModelError, match=message):
        read_header(path).program()
