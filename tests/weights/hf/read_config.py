"""Configs of tiny models, and how tests read them from a changed config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from octavo.model.config import ModelConfig
from octavo.weights.hf.config import model_config
from octavo.weights.hf.json_fields import Fields
from tests.families.checkpoints import CONFIGS
from tests.tiny import TINY
from tests.weights.hf.written import config_json

LLAMA = replace(TINY, rope_style="half", qkv_bias=False)
QWEN2 = replace(LLAMA, architecture="qwen2", qkv_bias=True)
GEMMA3 = CONFIGS["gemma3"]
SCALED = CONFIGS["gemma3, one KV head, positions scaled"]


def read(fields: Mapping[str, Any]) -> ModelConfig:
    return model_config(Fields("config.json", fields))


def changed(config: ModelConfig, **changes: Any) -> dict[str, Any]:
    """Its config.json; a change to `...` takes the field away."""
    found = {**config_json(config, form="old"), **changes}
    return {name: value for name, value in found.items() if value is not ...}
