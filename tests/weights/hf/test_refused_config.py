"""Every refusal of a config.json names its field."""

from __future__ import annotations

import math
from typing import Any

import pytest

from octavo.errors import ModelError, ModelFormatError, UnsupportedModelError
from octavo.model.config import ModelConfig
from octavo.model.registry import build_program
from octavo.weights.hf.families import FAMILIES
from tests.weights.hf.read_config import GEMMA3, LLAMA, QWEN2, changed, read

BROKEN: dict[str, tuple[ModelConfig, dict[str, Any], str]] = {
    "no size": (LLAMA, {"hidden_size": ...}, "hidden_size is missing: expected a whole number from "
                "1"),
    "null": (LLAMA, {"vocab_size": None}, "vocab_size is missing: expected a whole number from 1"),
    "a text": (LLAMA, {"hidden_size": "96"}, 'hidden_size is "96": expected a whole number from 1'),
    "true": (LLAMA, {"num_hidden_layers": True}, "num_hidden_layers is true: expected a whole "
             "number from 1"),
    "none": (LLAMA, {"num_attention_heads": 0}, "num_attention_heads is 0: expected a whole number "
             "from 1"),
    "heads": (LLAMA, {"num_key_value_heads": 3}, "num_key_value_heads is 3: expected a divisor of "
              "the 4 num_attention_heads"),
    "head sizes": (LLAMA, {"head_dim": None, "num_attention_heads": 5, "num_key_value_heads": 5},
                   "num_attention_heads is 5: expected a divisor of hidden_size, 96"),
    "odd heads": (LLAMA, {"head_dim": 31}, "head_dim is 31: expected an even number, at most "
                  "65536"),
    "eps": (LLAMA, {"rms_norm_eps": "small"}, 'rms_norm_eps is "small": expected a number'),
    "tied": (LLAMA, {"tie_word_embeddings": 1}, "tie_word_embeddings is 1: expected true or false"),
    "type": (LLAMA, {"model_type": "qwen2"}, "model_type is \"qwen2\", but architectures is "
             "['LlamaForCausalLM']: expected 'llama'"),
    "no name": (LLAMA, {"architectures": None, "model_type": None}, "architectures is missing: "
                "expected a list with a class of transformers"),
    "KV heads": (GEMMA3, {"num_key_value_heads": ...}, "num_key_value_heads is missing: expected a "
                 "whole number"),
    "two bases": (LLAMA, {"rope_parameters": {"rope_theta": 5e5}}, "rope_theta is 10000.0, "
                  "rope_parameters say 500000: one of them is wrong"),
    "two scalings": (LLAMA, {"rope_scaling": {"type": "linear", "factor": 2.0},
                             "rope_parameters": {"rope_type": "default"}},
                     'rope_scaling is {"type": "linear", "factor": 2.0}, and there are '
                     "rope_parameters: one of them is wrong"),
    "two types": (LLAMA, {"rope_scaling": {"type": "linear", "rope_type": "llama3"}},
                  "rope_scaling.type is \"linear\", rope_type is 'llama3': one is wrong"),
    "no factor": (LLAMA, {"rope_scaling": {"type": "linear"}}, "rope_scaling.factor is missing: "
                  "expected a number"),
    "factor 0": (LLAMA, {"rope_scaling": {"type": "linear", "factor": 0}},
                 "rope_scaling.factor is 0: expected a number above 0"),
    "too few factors": (LLAMA, {"rope_scaling": {"type": "longrope", "short_factor": [1.0] * 15,
                                                 "long_factor": [1.0] * 16}},
                        "rope_scaling.short_factor is [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0,"
                        " 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]: expected 16 numbers above 0"),
    "factors below 0": (LLAMA, {"rope_scaling": {"type": "longrope", "short_factor": [-1] * 16,
                                                 "long_factor": [1.0] * 16}},
                        f"rope_scaling.short_factor is [{', '.join(['-1'] * 16)}]: expected 16 "
                        "numbers above 0"),
    "no time": (LLAMA, {"rope_scaling": {"type": "yarn", "factor": 4,
                                         "original_max_position_embeddings": 1}},
                "rope_scaling.original_max_position_embeddings is 1: expected a whole number from "
                "2"),
    "endless": (LLAMA, {"max_position_embeddings": 10**30},
                f"max_position_embeddings is {10**30}: expected at most {2**32}"),
    "never": (LLAMA, {"rope_scaling": {"type": "yarn", "factor": 4, "beta_slow": -1}},
              "rope_scaling.beta_slow is -1: expected a number above 0"),
    "flat": (GEMMA3, {"rope_parameters": {"rope_theta": 1e6}}, "rope_parameters.full_attention "
             "is missing: expected an object"),
}  # fmt: skip

UNSUPPORTED: dict[str, tuple[ModelConfig, dict[str, Any], str]] = {
    "another": (LLAMA, {"architectures": ["CodeGenForCausalLM"]}, "architecture "
                f"'CodeGenForCausalLM' is not supported: {', '.join(FAMILIES)} are"),
    "recurrent": (LLAMA, {"architectures": ["Qwen3NextForCausalLM"]}, "architecture "
                  "'Qwen3NextForCausalLM' is not supported: it has recurrent layers, and Octavo "
                  "keeps no recurrent state yet"),
    "encoder": (LLAMA, {"architectures": ["BertModel"]}, "'BertModel' has no decoder, so it writes "
                f"no text; {', '.join(FAMILIES)} are run"),
    "quantised": (LLAMA, {"quantization_config": {"quant_method": "gptq", "bits": 4}},
                  "config.json: quantization_config says that the weights are quantised by gptq: "
                  "Octavo reads F32, F16 and BF16"),
    "bias": (QWEN2, {"attention_bias": True}, "config.json: attention_bias is true: only false is "
             "supported"),
    "unknown": (LLAMA, {"logits_scaling": 8.0}, "config.json: logits_scaling is 8.0: Octavo does "
                "not know this field, and leaving it out could change the answers; where it "
                "changes none, take it out of the file"),
    "activation": (LLAMA, {"hidden_act": "gelu"}, 'config.json: hidden_act is "gelu": only silu or '
                   "swish is supported"),
    "another scaling": (LLAMA, {"rope_scaling": {"type": "ntk", "factor": 4.0}}, "config.json: "
                        'rope_scaling.type is "ntk": default, linear, dynamic, llama3, yarn, '
                        "longrope and proportional are supported"),
    "more of a scaling": (LLAMA, {"rope_scaling": {"type": "linear", "factor": 2, "beta": 1}},
                          "config.json: rope_scaling.beta is 1: Octavo does not know this field, "
                          "and leaving it out could change the answers; where it changes none, "
                          "take it out of the file"),
    "cap": (GEMMA3, {"final_logit_softcapping": 30.0}, "config.json: final_logit_softcapping is "
            "30.0: only null is supported"),
    "both ways": (GEMMA3, {"use_bidirectional_attention": True}, "config.json: "
                  "use_bidirectional_attention is true: only false is supported"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_a_field_that_cannot_be_is_refused_by_name(what: str) -> None:
    config, changes, said = BROKEN[what]
    with pytest.raises(ModelFormatError) as refused:
        read(changed(config, **changes))
    assert str(refused.value) == f"config.json: {said}"


@pytest.mark.parametrize("what", UNSUPPORTED)
def test_a_model_that_is_not_run_says_by_which_field(what: str) -> None:
    config, changes, said = UNSUPPORTED[what]
    with pytest.raises(UnsupportedModelError) as refused:
        build_program(read(changed(config, **changes)))
    assert str(refused.value) == said


def test_no_number_is_beyond_all_sense() -> None:
    for name in ("num_hidden_layers", "vocab_size", "intermediate_size", "hidden_size", "head_dim"):
        with pytest.raises(ModelError, match="at most"):
            read(changed(LLAMA, **{name: 2**40}))
    with pytest.raises(ModelError, match="rope_theta is Infinity: expected a number above 0"):
        read(changed(LLAMA, rope_theta=math.inf))
