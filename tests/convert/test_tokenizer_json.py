"""What is written of a tokenizer is one that `tokenizers` and Octavo read alike."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
import tokenizers

from octavo.convert.tokenizer_json import check_reads, tokenizer_files
from octavo.errors import UnsupportedModelError
from octavo.sampling_params import Sampling
from octavo.tokenizer import Tokenizer
from octavo.tokenizer.byte_level import byte_to_char
from octavo.tokenizer.pre_tokenizer import _STEPS
from octavo.tokenizer.spec import TokenizerSpec, TokenType
from octavo.weights.hf.json_fields import Fields
from octavo.weights.hf.tokenizer import tokenizer_spec

TEXT = "hi hi  12,345 don't\n\n x = 'naïve'  你好 🙂 hhi<s>"
_WORDS = ["\u2581", "h", "i", "\u2581h", "hi", "\u2581hi"]


def spm(**changes: object) -> TokenizerSpec:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *_WORDS, "  "]
    types = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL, *[TokenType.BYTE] * 256]
    types += [TokenType.NORMAL] * len(_WORDS) + [TokenType.USER_DEFINED]
    spec = TokenizerSpec(
        "spm", "default", tokens, [int(t) for t in types],
        scores=[0.0] * 259 + [-float(i) for i in range(len(_WORDS) + 1)],
        bos_id=1, eos_id=2, unk_id=0, add_bos=True, chat_template="{{ messages }}",
    )  # fmt: skip
    return replace(spec, **changes)  # type: ignore[arg-type]


def bpe(pre: str) -> TokenizerSpec:
    bytes_ = [*byte_to_char()]
    tokens = [*bytes_, "hi", "\u0120hi", "12", "<|end|>", "<b>"]
    types = [1] * 259 + [int(TokenType.CONTROL), int(TokenType.USER_DEFINED)]
    return TokenizerSpec(
        "bpe", pre, tokens, types, merges=["h i", "\u0120 hi", "1 2"], eos_id=259, add_eos=True
    )


def specs() -> Iterator[TokenizerSpec]:
    yield from (bpe(pre) for pre in _STEPS if pre != "default")
    yield spm()
    plain = spm()
    without = {"tokens": plain.tokens[:-1], "token_types": plain.types[:-1],
               "scores": (plain.scores or [])[:-1]}  # fmt: skip
    for bare in (False, True):
        yield spm(**without, add_space_prefix=True, prefix_bare_only=bare)
    yield spm(**without, add_space_prefix=True, prefix_bare_only=True, prefix_first_only=True)


@pytest.mark.parametrize("spec", list(specs()), ids=lambda s: f"{s.kind}-{s.pre}")
def test_octavo_and_the_library_read_what_was_written(spec: TokenizerSpec) -> None:
    tokenizer = Tokenizer.from_spec(spec)
    text = tokenizer_files(tokenizer, None)["tokenizer.json"]
    read = tokenizer_spec(Fields("tokenizer.json", json.loads(text)), len(spec.tokens), print)
    read = replace(read, chat_template=spec.chat_template, eos_id=spec.eos_id)
    check_reads(tokenizer, read)
    library = tokenizers.Tokenizer.from_str(text)
    ids = tokenizer.encode(TEXT, parse_special=True)
    assert library.encode(TEXT).ids == ids
    assert library.decode(ids, skip_special_tokens=True).strip() != ""


def test_another_tokenizer_is_told_from_it() -> None:
    with pytest.raises(UnsupportedModelError, match="cuts a text into other tokens"):
        check_reads(Tokenizer.from_spec(bpe("smollm")), bpe("gpt-2"))
    with pytest.raises(UnsupportedModelError, match="cuts a text into other tokens"):
        check_reads(Tokenizer.from_spec(spm()), spm(chat_template="another"))


def test_ends_and_what_makers_recommend_are_written() -> None:
    smollm = Tokenizer.from_spec(bpe("smollm"))
    files = tokenizer_files(smollm, Sampling(temperature=0.6, top_p=0.9))
    found = json.loads(files["generation_config.json"])
    assert found["eos_token_id"] == [259]
    assert (found["do_sample"], found["temperature"], found["top_p"]) == (True, 0.6, 0.9)
    greedy = tokenizer_files(smollm, Sampling(temperature=0.0))
    assert json.loads(greedy["generation_config.json"])["do_sample"] is False
    named = Tokenizer.from_spec(replace(spm(), named_templates={"tool_use": "tools"}))
    config = json.loads(tokenizer_files(named, None)["tokenizer_config.json"])
    assert [each["name"] for each in config["chat_template"]] == ["default", "tool_use"]
    assert config["bos_token"] == "<s>"
    assert config["clean_up_tokenization_spaces"] is False
