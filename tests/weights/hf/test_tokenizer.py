"""tokenizer.json to a spec: the same tokens as `tokenizers` makes of the file, or a refusal."""

from __future__ import annotations

import copy
import gc
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from octavo.errors import ModelError
from octavo.tokenizer import Tokenizer, TokenizerSpec, TokenType
from octavo.tokenizer.byte_level import char_to_byte
from octavo.weights.hf.json_fields import Fields, parse_object
from octavo.weights.hf.tokenizer import token_count, tokenizer_spec
from octavo.weights.model_header import read_header
from tests.weights.hf.written import tokenizer_json

Json = dict[str, Any]
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")
TEXTS = [
    "", "hello, world", "  two  blanks ", "don't DON'T 1234567", "a\n\n b\r\n\tc",
    "caf\u00e9 cafe\u0301",
    "\u65e5\u672c\u8a9e \u30c6\u30b9\u30c8", "x" * 50, "he<tool>llo <tool>", "\U0001f600!?",
]  # fmt: skip


def byte_level(pre: str = "smollm") -> Json:
    """A small vocabulary with two merges, a special token and one that is found in any text."""
    tokens = [*char_to_byte(), "he", "ll", "<|end|>", "<tool>"]
    types = [TokenType.NORMAL] * 258 + [TokenType.CONTROL, TokenType.USER_DEFINED]
    spec = TokenizerSpec(kind="bpe", pre="smollm", tokens=tokens, token_types=[*map(int, types)],
                         merges=["h e", "l l"], eos_id=258)  # fmt: skip
    found = tokenizer_json(spec)
    to_bytes = {**found["decoder"], "use_regex": False}
    if pre == "gpt-2":
        found["pre_tokenizer"] = found["decoder"]
    elif pre != "smollm":
        rule = LLAMA3 if pre == "llama-bpe" else QWEN2
        split = {"type": "Split", "pattern": {"Regex": rule}, "behavior": "Isolated",
                 "invert": False}  # fmt: skip
        found["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, to_bytes]}
        found["model"]["ignore_merges"] = pre == "llama-bpe"
        found["normalizer"] = {"type": "NFC"} if pre == "qwen2" else None
    return found


def spm(*, space: bool) -> Json:
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    words = ["\u2581", *"helowrd", "he", "ll", "\u2581w", "hell", "hello", "\u2581\u2581"]
    tokens = ["<unk>", "<s>", "</s>", *bytes_, *words]
    types = [2, 3, 3] + [6] * 256 + [1] * len(words)
    if not space:
        tokens, types = [*tokens, "<tool>"], [*types, 4]
    scores = [0.0] * 259 + [-float(i) for i in range(len(tokens) - 259)]
    return tokenizer_json(
        TokenizerSpec(kind="spm", pre="default", tokens=tokens, token_types=types, scores=scores,
                      bos_id=1, eos_id=2, unk_id=0, add_bos=True, add_space_prefix=space)
    )  # fmt: skip


def read(found: Json, rows: int | None = None) -> TokenizerSpec:
    fields = Fields("tokenizer.json", found)
    rows = len(found["model"]["vocab"]) if rows is None else rows
    notes: list[str] = []
    spec = tokenizer_spec(fields, rows, notes.append)
    assert len(spec.tokens) == token_count(fields, rows)
    assert not notes
    return spec


def metaspace(scheme: str) -> Json:
    """The newer form of the second: what was a normalizer is a pre-tokenizer that cuts nothing."""
    found = spm(space=scheme != "never")
    rule = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": False}
    return {**found, "normalizer": None, "pre_tokenizer": rule}


FORMS: dict[str, Callable[[], Json]] = {
    **{pre: partial(byte_level, pre) for pre in ("smollm", "gpt-2", "llama-bpe", "qwen2")},
    "gemma": partial(spm, space=False),
    "llama 2": partial(spm, space=True),
    **{f"metaspace, {each}": partial(metaspace, each) for each in ("always", "first", "never")},
}


@pytest.mark.parametrize("form", FORMS)
def test_texts_have_the_tokens_that_the_file_itself_makes(form: str) -> None:
    found = FORMS[form]()
    theirs = tokenizers.Tokenizer.from_str(json.dumps(found))
    ours = Tokenizer.from_spec(read(found))
    assert ours.spec.pre == (form if ours.spec.kind == "bpe" else "default")
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode(text).ids or not text, text
    special = "<|end|>" if ours.spec.kind == "bpe" else "</s>"
    assert ours.encode(f"he{special}", parse_special=True) == theirs.encode(f"he{special}").ids
    assert ours.spec.tokens.index(special) not in ours.encode(f"he{special}")
    for text in ("{}he", "{} he{}{}", "he{}\u2581he", " {}", "\u2581{}hello w{}  he"):
        named = text.replace("{}", special)
        assert ours.encode(named, parse_special=True) == theirs.encode(named).ids, named


def test_a_real_vocabulary_in_the_form_of_its_own_family(smollm2_path: Path) -> None:
    """The spec of the GGUF file and that of the tokenizer.json made from it say the same."""
    spec = read_header(smollm2_path).tokenizer_spec()
    found = read(tokenizer_json(spec))
    assert (found.tokens, found.types, found.merges) == (spec.tokens, spec.types, spec.merges)
    theirs = tokenizers.Tokenizer.from_str(json.dumps(tokenizer_json(spec)))
    ours = Tokenizer.from_spec(found)
    for text in (*TEXTS, Path(__file__).read_text(encoding="utf-8")):
        assert ours.encode(text) == theirs.encode(text).ids


def test_ids_beyond_the_rows_are_dropped_where_they_are_added_and_refused_where_not() -> None:
    found = byte_level()
    fields = Fields("tokenizer.json", found)
    added = {**found["added_tokens"][0], "id": 260, "content": "<image>"}
    found["added_tokens"].append(added)
    notes: list[str] = []
    assert len(tokenizer_spec(fields, 260, notes.append).tokens) == token_count(fields, 260) == 260
    assert notes == ["tokenizer.json: token '<image>' of id 260 is left out: the embedding has 260 "
                     "rows"]  # fmt: skip
    assert len(read(found, 300).tokens) == 261
    found["model"]["vocab"]["word"] = 261
    with pytest.raises(ModelError, match="token 'word' has id 261: expected one of the 260 rows"):
        tokenizer_spec(fields, 260, notes.append)


def at(found: Json, *way: str | int, value: object) -> Json:
    """A copy of `found` with one thing changed."""
    found = inner = copy.deepcopy(found)
    for step in way[:-1]:
        inner = inner[step]
    inner[way[-1]] = value
    return found


BYTES, SPM = byte_level(), spm(space=False)
SPACED = at(spm(space=True), "added_tokens", 2, "special", value=False)
REFUSED: dict[str, tuple[Json, str]] = {
    "unigram": (at(BYTES, "model", "type", value="Unigram"), 'model.type is "Unigram": only "BPE" '
                "is supported"),
    "suffix": (at(BYTES, "model", "end_of_word_suffix", value="</w>"), "model.end_of_word_suffix "
               'is "</w>": only "" is supported'),
    "lower case": (at(BYTES, "normalizer", value={"type": "Lowercase"}), 'normalizer is {"type": '
                   '"Lowercase"}: Octavo\'s tokenizers have no such rule, and other tokens would '
                   "come of it"),
    "no rule": (at(BYTES, "pre_tokenizer", value={"type": "Whitespace"}), 'pre_tokenizer is {"type"'
                ': "Whitespace"}: Octavo\'s tokenizers have no such rule, and other tokens would '
                "come of it"),
    "metaspace": (at(metaspace("always"), "pre_tokenizer", "split", value=True), "pre_tokenizer is "
                  '{"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", '
                  '"split"...: Octavo\'s tokenizers have no such rule, and other tokens would '
                  "come of it"),
    "no byte": (at(SPM, "model", "vocab", value={"<s>": 0, "a": 1, "<unk>": 2}), "byte_fallback is "
                "true, and there is no token '<0x00>'"),
    "a blank beside": (at(BYTES, "added_tokens", 1, "lstrip", value=True), "token '<tool>' has "
                       "lstrip: Octavo's tokenizers do not do so"),
    "a word alone": (at(BYTES, "added_tokens", 0, "single_word", value=True), "token '<|end|>' has "
                     "single_word: Octavo's tokenizers do not do so"),
    "a word after a blank": (SPACED, "token '</s>' is found in any text, and what follows it would "
                             "begin with a blank: Octavo's tokenizers do not do so"),
    "two ids": (at(BYTES, "model", "vocab", "he", value=257), "tokens 'he' and 'll' both have id "
                "257"),
    "two names": (at(BYTES, "added_tokens", 0, "id", value=257), "tokens 'll' and '<|end|>' both "
                  "have id 257"),
    "no id": (at(BYTES, "model", "vocab", "he", value="1"), "token 'he' has id \"1\": expected one "
              "of the 260 rows of the embedding"),
    "no name": (at(BYTES, "added_tokens", value=[{"id": 3}]), 'added_tokens has {"id": 3}: '
                "expected content and id"),
    "a merge of one": (at(BYTES, "model", "merges", value=["he"]), 'model.merges: number 0 is "he":'
                       " expected two tokens"),
    "a merge of a blank": (at(BYTES, "model", "merges", value=[["h", "e"], ["l ", "l"]]),
                           'model.merges: number 1 is ["l ", "l"]: expected two tokens'),
    "a merge of three": (at(BYTES, "model", "merges", value=[["h", "e"], ["h", "e", "l"]]),
                         'model.merges: number 1 is ["h", "e", "l"]: expected two tokens'),
    "a merge with a number": (at(BYTES, "model", "merges", value=[["h", "e"], ["l", 1]]),
                              'model.merges: number 1 is ["l", 1]: expected two tokens'),
    "no model": (at(BYTES, "model", value=None), "model is missing: expected an object"),
    "BERT's": (at(BYTES, "post_processor", value={"type": "BertProcessing"}), "post_processor is "
               '{"type": "BertProcessing"}: Octavo\'s tokenizers do not do so here, and other '
               "tokens would come of it"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_would_make_other_tokens_is_refused(what: str) -> None:
    found, said = REFUSED[what]
    rows = 3 if what == "no byte" else 260
    if found is SPACED or what == "metaspace":
        rows = len(found["model"]["vocab"])
    if what == "no byte":
        found = {**found, "added_tokens": []}
    with pytest.raises(ModelError) as refused:
        read(found, rows)
    assert str(refused.value) == f"tokenizer.json: {said}"


def test_merges_are_read_in_both_their_forms_and_control_tokens_left_out() -> None:
    """`<|end|>` is one: no text may become it, nor be joined to it."""
    merges = ["h e", "l l", "<|end| >", "<|end|> l", "l <|end|>"]
    for form in (merges, [merge.split(" ") for merge in merges]):
        assert read(at(BYTES, "model", "merges", value=form), 260).merges == merges[:2]


def test_reading_json_leaves_the_garbage_collector_as_it_was() -> None:
    for is_on in (False, True):
        (gc.enable if is_on else gc.disable)()
        try:
            assert parse_object(b'{"a": [1]}', "a.json") == {"a": [1]}
            with pytest.raises(ModelError):
                parse_object(b"{", "a.json")
            assert gc.isenabled() is is_on
        finally:
            gc.enable()


def test_an_id_without_a_token_is_refused() -> None:
    found = byte_level()
    found["model"]["vocab"]["<tool>"] = 265
    found["added_tokens"][1]["id"] = 265
    with pytest.raises(ModelError, match="no token has id 259, others have more"):
        read(found, 300)
