"""Pre-tokenizers of tokenizer.json as the families' own files have them: `tokenizers` with the file
itself, Octavo with the file, and Octavo with the name that GGUF has for it make the same tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from octavo.tokenizer import Tokenizer, TokenizerSpec, TokenType
from octavo.weights.hf.json_fields import Fields
from octavo.weights.hf.tokenizer import tokenizer_spec
from tests.tokenizer.fixture_specs import load_spec, load_texts

Json = dict[str, Any]
BLANKS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA3 = (
    rf"{SUFFIX}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|"
    rf" ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{BLANKS}"
)
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
O200K = (
    TEKKEN.replace("]+|[^", f"]+{SUFFIX}?|[^", 1)
    .replace(r"]*|\p{N}|", rf"]*{SUFFIX}?|\p{{N}}{{1,3}}|")
)  # fmt: skip
BLOOM = " ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+"
DIGITS: Json = {"type": "Digits", "individual_digits": True}
BYTES: Json = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": True,
}
ONLY_BYTES = {**BYTES, "use_regex": False}
FALCON: list[Json] = [
    {"type": "Punctuation", "behavior": "Contiguous"},
    BYTES,
    {"type": "Digits", "individual_digits": False},
    {"type": "Split", "pattern": {"Regex": "[0-9][0-9][0-9]"}, "behavior": "Isolated",
     "invert": False},
]  # fmt: skip


def isolated(rule: str) -> list[Json]:
    split = {"type": "Split", "pattern": {"Regex": rule}, "behavior": "Isolated", "invert": False}
    return [split, ONLY_BYTES]


def kept(rule: str) -> list[Json]:
    """As files made from tiktoken's have it: what matches is kept, and nothing does not."""
    split = {"type": "Split", "pattern": {"Regex": rule}, "behavior": "Removed", "invert": True}
    return [split, ONLY_BYTES]


# by the name in GGUF: the parts, ignore_merges, the normalizer
FORMS: dict[str, tuple[list[Json], bool, Json | None]] = {
    "gpt-2": ([{k: v for k, v in BYTES.items() if k != "use_regex"}], False, None),
    "starcoder": ([DIGITS, BYTES], False, None),
    "falcon": (FALCON, False, None),
    "llama-bpe": (isolated(LLAMA3), True, None),
    "smaug-bpe": (isolated(LLAMA3), False, None),
    "dbrx": (kept(LLAMA3), False, {"type": "Sequence", "normalizers": []}),
    "qwen2": (isolated(LLAMA3.replace("{1,3}", "")), False, {"type": "NFC"}),
    "tekken": (isolated(TEKKEN), True, None),
    "gpt-4o": (kept(O200K), False, None),
    "bloom": (isolated(BLOOM), False, None),
}
each = pytest.mark.parametrize("name", FORMS)


def file_of(spec: TokenizerSpec, pre_tokenizer: Json | None, **model: object) -> Json:
    """A tokenizer.json over the vocabulary of `spec`."""
    kinds = (TokenType.CONTROL, TokenType.UNKNOWN, TokenType.USER_DEFINED)
    added = [
        {"id": i, "content": spec.tokens[i], "special": kind != TokenType.USER_DEFINED,
         "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        for i, kind in enumerate(spec.types) if kind in kinds
    ]  # fmt: skip
    vocab = {token: i for i, token in enumerate(spec.tokens)}
    return {
        "version": "1.0", "added_tokens": added, "normalizer": None, "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "model": {"type": "BPE", "vocab": vocab, "merges": spec.merges, **model},
    }  # fmt: skip


def form(name: str) -> Json:
    parts, whole_words, normalizer = FORMS[name]
    one = parts[0] if len(parts) == 1 else {"type": "Sequence", "pretokenizers": parts}
    found = file_of(load_spec("tiny_bpe"), one, ignore_merges=whole_words)
    return {**found, "normalizer": normalizer}


def both(found: Json) -> tuple[tokenizers.Tokenizer, Tokenizer]:
    """The tokenizer of the library, and ours, of one file."""
    fields = Fields("tokenizer.json", found)
    spec = tokenizer_spec(fields, len(found["model"]["vocab"]), pytest.fail)
    return tokenizers.Tokenizer.from_str(json.dumps(found)), Tokenizer.from_spec(spec)


THREE = {
    name: (*both(form(name)), Tokenizer.from_spec(load_spec("tiny_bpe", pre=name, add_bos=False)))
    for name in FORMS
}


def check(name: str, text: str) -> None:
    theirs, ours, gguf = THREE[name]
    want = theirs.encode(text).ids
    assert ours.encode(text, parse_special=True) == want, text
    assert gguf.encode(text, parse_special=True) == want, text


@each
def test_naughty_texts_have_the_same_tokens_by_all_three(name: str) -> None:
    for text in load_texts():
        check(name, text)


@each
@given(text=st.text(max_size=40) | st.text("aB cD1 2'sSlL\n\r/.,!\u0301\u00bd\u043d", max_size=40))
def test_so_has_any_text(name: str, text: str) -> None:
    check(name, text)


@each
def test_so_have_the_strings_of_others(name: str, public_data: Path) -> None:
    folder = public_data / "tokenizer"
    texts = (folder / "blns.part1.txt").read_text(encoding="utf-8").splitlines()
    inputs = sorted((folder / "llamacpp").glob("*.inp"))
    assert inputs
    for path in inputs:
        texts += path.read_bytes().decode().split("\n__ggml_vocab_test__\n")
    for text in texts:
        check(name, text)


def test_a_known_rule_with_other_merges_or_normalizer_is_what_the_file_says() -> None:
    found = form("smaug-bpe")
    found["normalizer"] = {"type": "NFC"}
    found["model"]["vocab"]["qzqz"] = len(found["model"]["vocab"])
    theirs, ours = both(found)
    assert ours.encode("cafe\u0301 qzqz") == theirs.encode("cafe\u0301 qzqz").ids
    found["model"]["ignore_merges"] = True
    theirs, ours = both(found)
    assert ours.encode("qzqz") == theirs.encode("qzqz").ids == [len(found["model"]["vocab"]) - 1]


def without_user_defined(spec: TokenizerSpec) -> TokenizerSpec:
    types = [1 if kind == TokenType.USER_DEFINED else kind for kind in spec.types]
    return TokenizerSpec(spec.kind, spec.pre, spec.tokens, types, spec.scores, spec.merges)


STRETCHES = ["page", " page", "  two blanks", "", "a<|end|>page", "a<|end|> page<|turn|>b",
             " <|end|>a", "<|end|>page page"]  # fmt: skip
NAUGHTY = [text for text in load_texts() if "<unk>" not in text]  # which no text of ours yields


def test_a_blank_is_put_in_front_where_a_byte_level_file_says_so() -> None:
    spec = without_user_defined(load_spec("tiny_bpe"))
    theirs, ours = both(file_of(spec, {**BYTES, "add_prefix_space": True}))
    for text in STRETCHES:
        assert ours.encode(text, parse_special=True) == theirs.encode(text).ids, text
    assert ours.decode(ours.encode("page")) == "page"


def metaspace(scheme: str, **more: object) -> Json:
    return {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": False,
            **more}  # fmt: skip


def spm_spec(*, user_defined: bool) -> TokenizerSpec:
    """A vocabulary like Llama 2's; merges are listed in a file, scores are not."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    words = ["\u2581", *"pagetwo", "pa", "ge", "page", "\u2581page", "\u2581\u2581", "\u2581two"]
    tokens = ["<unk>", "<|turn|>", "<|end|>", *bytes_, *dict.fromkeys(words), "<tool>"]
    types = [2, 3, 3] + [6] * 256 + [1] * (len(tokens) - 260) + [4 if user_defined else 3]
    merges = ["p a", "g e", "pa ge", "\u2581 page", "\u2581 \u2581"]
    return TokenizerSpec("spm", "default", tokens, types, merges=merges)


@pytest.mark.parametrize("scheme", ["always", "first", "never"])
@pytest.mark.parametrize("ignore_merges", [False, True])
def test_metaspace_puts_a_blank_where_its_scheme_says(scheme: str, ignore_merges: bool) -> None:
    spec = spm_spec(user_defined=False)
    theirs, ours = both(file_of(spec, metaspace(scheme), byte_fallback=True, fuse_unk=True,
                                unk_token="<unk>", ignore_merges=ignore_merges))  # fmt: skip
    for text in [*STRETCHES, "\u2581page", "two", "caf\u00e9", *NAUGHTY]:
        assert ours.encode(text, parse_special=True) == theirs.encode(text).ids, text


def test_a_token_found_in_any_text_takes_the_start_from_what_follows_it() -> None:
    spec = spm_spec(user_defined=True)
    theirs, ours = both(file_of(spec, metaspace("first"), byte_fallback=True, fuse_unk=True,
                                unk_token="<unk>"))  # fmt: skip
    for text in ("<tool>page", "page<tool>page", " <tool>page", "<tool> page"):
        assert ours.encode(text) == theirs.encode(text).ids, text


@pytest.mark.parametrize("sides", [("lstrip",), ("rstrip",), ("lstrip", "rstrip")])
def test_special_tokens_take_the_white_space_that_the_file_gives_them(sides: tuple[str]) -> None:
    found = form("gpt-2")
    for added in found["added_tokens"][:2]:
        added |= dict.fromkeys(sides, True)
    theirs, ours = both(found)
    for text in ("a <|bos|> b", "<|turn|>\n\nuser<|end|>\n a", " <|bos|> \u00a0<|turn|>\t",
                 "a\x1c<|bos|>\x1c <|end|> b", "<|bos|> <|turn|> <|bos|>"):  # fmt: skip
        assert ours.encode(text, parse_special=True) == theirs.encode(text).ids, text
        assert ours.encode(text) != theirs.encode(text).ids  # a user's words are text
