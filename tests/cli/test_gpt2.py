"""A GPT-2 directory from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from octavo.tokenizer.byte_level import char_to_byte
from tests.cli.result import Octavo
from tests.families.directories import config_of, golden_of
from tests.families.drawn import checkpoint
from tests.weights.hf.written import write_json, write_weights


def directory(path: Path) -> str:
    """Its tokens are the bytes, and one that ends a text."""
    config = config_of("gpt2") | {"vocab_size": 257}
    shapes: dict[str, Any] = golden_of("gpt2")["shapes"] | {"transformer.wte.weight": [257, 96]}
    write_json(path / "config.json", config)
    write_weights(path, checkpoint(shapes, config, 0))
    write_json(path / "tokenizer.json", _tokenizer())
    return str(path)


def test_a_text_is_gone_on_with(octavo: Octavo, tmp_path: Path) -> None:
    asked = ("run", directory(tmp_path), "Lionel Messi is a", "--temperature", "0",
             "--max-tokens", "9", "--ignore-eos", "--threads", "1", "--json")  # fmt: skip
    result = octavo(*asked)
    assert result.code == 0, result.err
    assert result.json["usage"]["prompt_tokens"] == len("Lionel Messi is a")
    assert len(result.json["outputs"][0]["token_ids"]) == 9
    assert octavo(*asked).json["outputs"] == result.json["outputs"]


def test_a_context_beyond_it_is_refused(octavo: Octavo, tmp_path: Path) -> None:
    result = octavo("run", directory(tmp_path), "a", "--context", "257")
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        "octavo: --context 257: the model was trained for at most 256 tokens; its table of "
        "positions has no more\n"
    )


def _tokenizer() -> dict[str, Any]:
    vocab = {char: i for i, char in enumerate(char_to_byte())}
    special = {
        "id": 256, "content": "<|endoftext|>", "single_word": False, "lstrip": False,
        "rstrip": False, "normalized": True, "special": True,
    }  # fmt: skip
    bytes_ = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0", "added_tokens": [special], "normalizer": None, "pre_tokenizer": bytes_,
        "post_processor": bytes_, "decoder": bytes_,
        "model": {"type": "BPE", "vocab": vocab | {"<|endoftext|>": 256}, "merges": []},
    }  # fmt: skip
