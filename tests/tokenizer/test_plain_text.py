"""What a vocabulary becomes: tokens and merges that do not fit are refused, odd ones are kept."""

from __future__ import annotations

from dataclasses import replace

import pytest

from octavo.errors import ModelFormatError
from octavo.tokenizer import Tokenizer
from tests.tokenizer.fixture_specs import load_spec, load_tokenizer, with_pieces


@pytest.mark.parametrize("merge", ["qq", "q", "a b c", ""])
def test_a_merge_that_is_no_pair_is_a_broken_model(merge: str) -> None:
    with pytest.raises(ModelFormatError, match="tokens and merges do not fit: "):
        load_tokenizer("tiny_bpe", merges=[merge])


def test_a_merge_of_a_missing_token_is_a_broken_model() -> None:
    with pytest.raises(ModelFormatError, match=r"tokens and merges do not fit: .*qq"):
        load_tokenizer("tiny_bpe", merges=["q qq"])


def test_a_merge_that_makes_more_than_the_longest_token_is_a_broken_model() -> None:
    """The library panicked over it, which passes every `except Exception`."""
    tokens = list(load_spec("tiny_bpe").tokens)
    longest = max(tokens, key=lambda piece: len(piece.encode()))
    tokens[tokens.index(longest)] = "renamed"
    with pytest.raises(ModelFormatError, match=r"tokens and merges do not fit: '.* .*' makes no"):
        load_tokenizer("tiny_bpe", tokens=tokens)


def test_a_merge_that_looks_like_a_file_header_is_kept() -> None:
    """The library's reader of merges in text drops lines that begin with "#version"."""
    spec = load_spec("tiny_spm")
    assert spec.scores is not None
    pieces = ["#v", "#ve", "#ver", "#vers", "#versi", "#versio", "#version", "#versions", "#"]
    pieces = [piece for piece in pieces if piece not in spec.tokens]
    scores = [*spec.scores, *(float(len(piece)) for piece in pieces)]
    longer = replace(with_pieces(spec, *pieces), scores=scores)
    ids = Tokenizer.from_spec(longer).encode("#versions", add_special=False)
    assert ids == [longer.tokens.index("#versions")]
