"""The tokenizer's own promises: BOS and EOS, special text, ids outside the vocabulary, display."""

from __future__ import annotations

import pytest

from octavo.errors import UsageError
from octavo.tokenizer import Tokenizer
from tests.tokenizer.fixture_specs import load_spec, load_texts

BPE = Tokenizer.from_spec(load_spec("tiny_bpe"))
SPM = Tokenizer.from_spec(load_spec("tiny_spm"))
BOTH = pytest.mark.parametrize("tokenizer", [BPE, SPM], ids=["bpe", "spm"])


@BOTH
def test_naughty_texts_come_back(tokenizer):
    assert len(load_texts()) > 60
    for text in load_texts():
        want = text.replace("\u2581", " ") if tokenizer is SPM else text
        assert tokenizer.decode(tokenizer.encode(text)) == want


@BOTH
def test_special_tokens_are_added_as_the_model_says(tokenizer):
    plain = tokenizer.encode("hi", add_special=False)
    assert tokenizer.encode("hi") == [tokenizer.bos_id, *plain]
    assert tokenizer.encode("") == [tokenizer.bos_id]
    name = {id(BPE): "tiny_bpe", id(SPM): "tiny_spm"}[id(tokenizer)]
    quiet = Tokenizer.from_spec(load_spec(name, add_bos=False, add_eos=True))
    assert quiet.encode("hi") == [*plain, tokenizer.spec.eos_id]


@BOTH
def test_special_text_is_parsed_only_on_request(tokenizer):
    end = tokenizer.spec.tokens.index("<|end|>")
    assert end not in tokenizer.encode("a<|end|>b")
    parsed = tokenizer.encode("a<|end|>b", add_special=False, parse_special=True)
    a, b = (tokenizer.encode(text, add_special=False) for text in "ab")
    assert parsed == [*a, end, *b]
    assert tokenizer.decode(parsed) == "ab"
    assert tokenizer.decode(parsed, skip_special=False) == "a<|end|>b"


@BOTH
def test_a_bos_in_the_text_is_not_doubled(tokenizer):
    text = tokenizer.spec.tokens[tokenizer.bos_id] + "hi"
    assert tokenizer.encode(text, parse_special=True) == tokenizer.encode("hi")


def test_the_blank_in_front_follows_special_tokens_too():
    tokenizer = Tokenizer.from_spec(load_spec("tiny_spm", add_space_prefix=True))
    end = tokenizer.spec.tokens.index("<|end|>")
    page = SPM.encode(" page", add_special=False)
    ids = tokenizer.encode("page<|end|>page", add_special=False, parse_special=True)
    assert ids == [*page, end, *page]


def test_end_tokens_are_the_stated_ones_and_the_well_known_control_tokens():
    assert BPE.eos_ids == {2}
    spec = load_spec("tiny_bpe", eot_id=1)
    spec.tokens[0] = "<|im_end|>"  # a control token
    spec.tokens[603] = "<|eot_id|>"  # a user-defined one: ordinary text
    assert Tokenizer.from_spec(spec).eos_ids == {0, 1, 2}


@BOTH
@pytest.mark.parametrize("token_id", [-1, 10**6])
def test_ids_outside_the_vocabulary_are_refused(tokenizer, token_id):
    for use in (tokenizer.token_bytes, lambda i: tokenizer.decode([i])):
        with pytest.raises(UsageError, match=rf"token id {token_id} is outside the vocabulary of"):
            use(token_id)


def test_the_bytes_that_a_token_stands_for():
    assert BPE.token_bytes(2) == b"<|end|>"
    assert BPE.token_bytes(BPE.spec.tokens.index("\u0120the")) == b" the"
    assert SPM.token_bytes(SPM.spec.tokens.index("<0xE7>")) == b"\xe7"
    assert SPM.token_bytes(SPM.spec.tokens.index("\u2581the")) == b" the"
    assert SPM.token_bytes(SPM.spec.unk_id) == "\ufffd".encode()
    assert (BPE.vocab_size, SPM.vocab_size) == (605, 700)


def test_the_most_bytes_of_text_that_a_token_stands_for():
    assert BPE.longest_token_bytes == max(len(BPE.token_bytes(i)) for i in range(BPE.vocab_size))
    assert SPM.longest_token_bytes == max(len(piece.encode()) for piece in SPM.spec.tokens)
    spec = load_spec("tiny_bpe")
    spec.tokens[2] = "<\uff5cend\uff5c>" * 5  # a name is spelt as it is, no stand-ins for bytes
    assert Tokenizer.from_spec(spec).longest_token_bytes == 55


@BOTH
def test_half_a_surrogate_pair_is_refused(tokenizer):
    with pytest.raises(UsageError, match="not valid Unicode"):
        tokenizer.encode("a\ud800b")
