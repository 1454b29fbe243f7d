"""Specs that cannot be right are refused with what is wrong."""

from __future__ import annotations

import numpy as np
import pytest

from octavo.errors import ModelFormatError, UnsupportedModelError
from tests.tokenizer.fixture_specs import load_spec


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("tiny_bpe", {"merges": None}, "needs merges"),
        ("tiny_spm", {"scores": None}, "needs scores"),
        ("tiny_spm", {"scores": [0.0]}, "scores has 1 entries for 700 tokens"),
        ("tiny_spm", {"token_types": [1, 1]}, "token_types has 2 entries for 700 tokens"),
        ("tiny_spm", {"eos_id": 700}, "eos_id is 700, outside the vocabulary of 700"),
        ("tiny_spm", {"eot_id": -1}, "eot_id is -1"),
        ("tiny_spm", {"bos_id": None}, "asks for a BOS token but names none"),
        ("tiny_bpe", {"add_eos": True, "eos_id": None}, "asks for an EOS token but names none"),
    ],
)
def test_a_spec_that_contradicts_itself_is_a_broken_model(name, changes, message):
    with pytest.raises(ModelFormatError, match=message):
        load_spec(name, **changes)


def test_an_unknown_kind_is_refused_by_name():
    with pytest.raises(UnsupportedModelError, match="'wpm' is not supported"):
        load_spec("tiny_bpe", kind="wpm")


def test_an_end_token_of_normal_type_counts_as_control_unless_merges_build_it():
    spec = load_spec("tiny_spm")
    page = spec.tokens.index("page")
    typed_normal = [1 if i == spec.eos_id else kind for i, kind in enumerate(spec.types)]
    assert spec.eos_id in load_spec("tiny_spm", token_types=typed_normal).control_ids
    assert page in load_spec("tiny_spm", eot_id=page).control_ids
    bpe = load_spec("tiny_bpe")
    comma, the = bpe.tokens.index(","), bpe.tokens.index("\u0120the")
    assert load_spec("tiny_bpe", bos_id=comma, eot_id=the).control_ids == {0, 1, 2}


def test_types_may_be_an_array_or_a_list():
    spec = load_spec("tiny_bpe")
    array = load_spec("tiny_bpe", token_types=np.array(spec.token_types, dtype=np.int32))
    assert array.digest("") == spec.digest("")
    assert array.types == spec.types
