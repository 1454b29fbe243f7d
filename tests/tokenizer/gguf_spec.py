"""A `TokenizerSpec` from a GGUF file by way of the `gguf` package: the tests' own road, slow and
independent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from octavo.tokenizer import TokenizerSpec

_KINDS = {"gpt2": "bpe", "llama": "spm"}


def spec_from_gguf(path: Path) -> TokenizerSpec:
    import gguf  # takes a second to import and is absent where only the library is installed

    fields = gguf.GGUFReader(path).fields

    def value(name: str, default: Any = None) -> Any:
        return fields[name].contents() if name in fields else default

    kind = _KINDS[value("tokenizer.ggml.model")]
    return TokenizerSpec(
        kind=kind,  # type: ignore[arg-type]
        pre=value("tokenizer.ggml.pre", "default"),
        tokens=value("tokenizer.ggml.tokens"),
        token_types=value("tokenizer.ggml.token_type"),
        scores=value("tokenizer.ggml.scores"),
        merges=value("tokenizer.ggml.merges"),
        bos_id=value("tokenizer.ggml.bos_token_id"),
        eos_id=value("tokenizer.ggml.eos_token_id"),
        unk_id=value("tokenizer.ggml.unknown_token_id"),
        eot_id=value("tokenizer.ggml.eot_token_id"),
        pad_id=value("tokenizer.ggml.padding_token_id"),
        add_bos=value("tokenizer.ggml.add_bos_token", kind == "spm"),
        add_eos=value("tokenizer.ggml.add_eos_token", False),
        add_space_prefix=value("tokenizer.ggml.add_space_prefix", kind == "spm"),
        chat_template=value("tokenizer.chat_template"),
    )
