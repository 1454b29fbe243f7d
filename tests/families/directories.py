"""The variants of each family, and their directories as people have them.

`configs/NAME.json` is the config.json of a variant; `golden/NAME.json` is what transformers says of
it (`make_golden`). Knows no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from octavo.tokenizer.byte_level import char_to_byte
from tests.families.drawn import checkpoint
from tests.weights.hf.written import write_json, write_weights

_HERE = Path(__file__).parent
VARIANTS = sorted(path.stem for path in (_HERE / "configs").glob("*.json"))


def config_of(variant: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((_HERE / "configs" / f"{variant}.json").read_bytes())
    return found


def golden_path(variant: str) -> Path:
    return _HERE / "golden" / f"{variant}.json"


def golden_of(variant: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(golden_path(variant).read_bytes())
    return found


def write_directory(
    path: Path,
    variant: str,
    shapes: Mapping[str, Sequence[int]],
    seed: int,
    *,
    shards: int = 1,
) -> Path:
    """config.json as it stands, the drawn weights in bf16, and a tokenizer of 131 bytes."""
    config = config_of(variant)
    path.mkdir(parents=True, exist_ok=True)
    write_json(path / "config.json", config)
    write_weights(path, checkpoint(shapes, config, seed), dtype="BF16", shards=shards)
    write_json(path / "tokenizer.json", _tokenizer(131))
    return path


def _tokenizer(tokens: int) -> dict[str, Any]:
    """GPT-2's rules over a vocabulary of the first bytes; no text is encoded with it."""
    vocab = {char: i for i, char in enumerate([*char_to_byte()][:tokens])}
    bytes_ = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    return {
        "version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": bytes_,
        "post_processor": bytes_, "decoder": bytes_,
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    }  # fmt: skip
