"""Real vocabularies: golden ids of SmolLM2, Gemma 3's beside sentencepiece where the model is here,
and llama.cpp's own test strings where they are at hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from octavo.tokenizer import Detokenizer, Tokenizer
from octavo.weights.model_header import read_header
from tests.tokenizer.fixture_specs import load_golden, load_texts
from tests.tokenizer.sentencepiece_oracle import processor

LONG_TEXTS = ["tokenizer/blns.part1.txt", "text/wagahai_ja.part1.txt"]
SMOLLM2_MISSING = {4, 6, 0x13, 0x14, 0x16, 0x1D}  # characters that it has no token for


@pytest.fixture(scope="module")
def smollm2(smollm2_path: Path) -> Tokenizer:
    return Tokenizer.from_spec(read_header(smollm2_path).tokenizer_spec())


def test_smollm2_ids_equal_the_golden_ids(smollm2: Tokenizer) -> None:
    for text, ids in load_golden("smollm2"):
        assert smollm2.encode(text) == ids, text
        assert smollm2.decode(ids) == text


def test_smollm2_facts(smollm2: Tokenizer) -> None:
    assert smollm2.vocab_size == 49152
    assert smollm2.eos_ids == {0, 2}
    assert {byte for byte in range(0x80) if not smollm2.encode(chr(byte))} == SMOLLM2_MISSING
    assert smollm2.encode("<|im_end|>", parse_special=True) == [2]


def test_smollm2_chat(smollm2: Tokenizer) -> None:
    ids = smollm2.encode_chat([{"role": "user", "content": "Why?<|im_end|>"}])
    shown = smollm2.decode(ids, skip_special=False)
    assert shown.endswith("<|im_start|>user\nWhy?<|im_end|><|im_end|>\n<|im_start|>assistant\n")
    assert (ids.count(1), ids.count(2)) == (3, 2)  # three turns; the typed end is text


@pytest.mark.parametrize("name", LONG_TEXTS)
def test_long_texts_come_back(smollm2: Tokenizer, name: str, public_data: Path) -> None:
    text = (public_data / name).read_bytes().decode()
    ids = smollm2.encode(text)
    detokenizer = Detokenizer(smollm2)
    streamed = "".join(map(detokenizer.push, ids)) + detokenizer.finish()
    gone = str.maketrans(dict.fromkeys(SMOLLM2_MISSING))
    assert streamed == smollm2.decode(ids) == text.translate(gone)


def llamacpp_strings(public_data: Path) -> list[str]:
    paths = sorted((public_data / "tokenizer" / "llamacpp").glob("*.inp"))
    assert paths
    split = [path.read_bytes().decode().split("\n__ggml_vocab_test__\n") for path in paths]
    return [text for *texts, _ in split for text in texts]  # it ends each one


def test_llamacpp_strings_come_back(smollm2: Tokenizer, public_data: Path) -> None:
    for text in llamacpp_strings(public_data):
        assert smollm2.decode(smollm2.encode(text)) == text


def test_ids_of_gemma_equal_sentencepiece(gemma3_path: Path, public_data: Path) -> None:
    """Of 262,144 tokens 6,249 are control tokens, which no text yields, and 165 are taken whole."""
    spec = read_header(gemma3_path).tokenizer_spec()
    ours, oracle = Tokenizer.from_spec(spec), processor(spec)
    texts = [*load_texts(), *llamacpp_strings(public_data)]
    for name in LONG_TEXTS:
        texts += (public_data / name).read_bytes().decode().splitlines()
    for text in texts:
        assert ours.encode(text, add_special=False) == oracle.encode(text), text
