"""SamplingParams and RequestOptions: defaults, ranges, names."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from octavo.errors import UsageError
from octavo.request import RequestOptions
from octavo.sampling_params import Sampling, SamplingParams


def test_defaults_leave_the_choice_to_the_model_and_a_single_stop_is_a_list_of_one() -> None:
    params = SamplingParams()
    assert params.max_tokens is params.temperature is params.seed is None
    assert params.stop == () == params.stop_token_ids
    assert SamplingParams(stop="END").stop == ("END",)
    assert SamplingParams(stop=["a", "b"], stop_token_ids=[3]).stop_token_ids == (3,)


def test_biases_are_kept_by_token_id_whoever_spells_them() -> None:
    given: dict[Any, Any] = {"12": 1, 3: np.float32(-0.5), np.int64(7): 0}
    params = SamplingParams(logit_bias=given)
    assert repr(params.logit_bias) == "{3: -0.5, 7: 0.0, 12: 1.0}"
    given[4] = 1
    assert params.logit_bias == {3: -0.5, 7: 0.0, 12: 1.0}
    assert params == SamplingParams(logit_bias={3: -0.5, 7: 0, 12: 1})
    assert len({params, replace(params, n=1), SamplingParams()}) == 2  # they have a hash
    assert SamplingParams(logit_bias={}) == SamplingParams()
    assert SamplingParams(logit_bias={}, beam_width=2).logit_bias is None
    assert len(SamplingParams(logit_bias=dict.fromkeys(range(1024), 1)).logit_bias or ()) == 1024


def test_numbers_of_numpy_are_taken_and_none_is_the_default() -> None:
    numbers: dict[str, Any] = {
        "max_tokens": np.int32(5), "temperature": np.float64(0.5), "top_k": np.uint8(3),
        "seed": np.uint64(2**64 - 1), "stop": np.array(["a", "b"]),
        "stop_token_ids": np.array([3, 4]), "ignore_eos": np.bool_(True), "logprobs": np.int64(0),
    }  # fmt: skip
    given = SamplingParams(**numbers)
    plain = SamplingParams(
        max_tokens=5, temperature=0.5, top_k=3, seed=2**64 - 1, stop=["a", "b"],
        stop_token_ids=[3, 4], ignore_eos=True, logprobs=0,
    )  # fmt: skip
    assert given == plain
    assert repr(given) == repr(plain)  # and none of them is numpy's any more
    ids: Any = [np.int64(3)]
    assert SamplingParams(stop_token_ids=ids).stop_token_ids == (3,)
    assert SamplingParams.parse(dict.fromkeys(SamplingParams.__slots__)) == SamplingParams()
    numbers = {"priority": np.int64(-2), "deadline_ms": np.uint16(50)}
    assert repr(RequestOptions(**numbers)) == repr(RequestOptions(priority=-2, deadline_ms=50))
    unset: dict[str, Any] = dict.fromkeys(("priority", "deadline_ms", "cache_salt"))
    assert RequestOptions(**unset) == RequestOptions()


@pytest.mark.parametrize(
    ("option", "message"),
    [({"max_tokens": -1}, "max_tokens=-1: expected a whole number from 0 to 2147483647"),
     ({"max_tokens": 0, "beam_width": 2}, "max_tokens=0: cannot be combined with beam_width"),
     ({"max_tokens": 2.0}, "max_tokens=2.0"),
     ({"temperature": -0.1}, "temperature=-0.1: expected a number from 0 to 100"),
     ({"temperature": float("inf")}, "temperature=inf"),
     ({"temperature": 10**400}, "temperature=1000"),  # JSON has it, and no float holds it
     ({"top_k": -1}, "top_k=-1: expected a whole number from 0"),
     ({"top_p": -0.1}, "top_p=-0.1: expected a number from 0 to 1"),
     ({"top_p": 1.01}, "top_p=1.01"),
     ({"min_p": 2}, "min_p=2: expected a number from 0 to 1"),
     ({"repetition_penalty": 0.0}, "repetition_penalty=0.0: expected a number above 0 and"),
     ({"presence_penalty": 3}, "presence_penalty=3: expected a number from -2 to 2"),
     ({"frequency_penalty": "1"}, "frequency_penalty='1'"),
     ({"seed": -1}, "seed=-1: expected a whole number from 0 to 18446744073709551615"),
     ({"logprobs": 21}, "logprobs=21: expected a whole number from 0 to 20"),
     ({"prompt_logprobs": -1}, "prompt_logprobs=-1: expected a whole number from 0 to 20"),
     ({"n": 0}, "n=0: expected a whole number from 1 to 64"),
     ({"n": np.int64(65)}, "n=65: expected"),
     ({"n": np.float64(1)}, "n=1.0: expected"),
     ({"n": np.array([1])}, "n=[1]: expected"),
     ({"beam_width": 33}, "beam_width=33: expected a whole number from 1 to 32"),
     ({"beam_width": 2, "length_penalty": 11}, "length_penalty=11: expected a number from -10"),
     ({"beam_width": 2, "early_stopping": 1}, "early_stopping=1: expected True or False"),
     ({"length_penalty": 0.5}, "length_penalty=0.5: needs beam_width"),
     ({"early_stopping": True}, "early_stopping=True: needs beam_width"),
     ({"beam_width": 2, "n": 3}, "n=3: at most beam_width=2"),
     ({"beam_width": 2, "temperature": 0.5}, "temperature=0.5: beam_width takes none, or 0"),
     ({"logit_bias": {5: 101}}, "logit_bias={5: 101}: expected token ids, each with a number from"),
     ({"logit_bias": {5: 1, "x": 2}}, "logit_bias={'x': 2}: expected token ids"),
    ({"logit_bias": {5: 1, "05": 2}}, "logit_bias has 5 twice: expected each token id once"),
     ({"logit_bias": {"9" * 5000: 2}}, "logit_bias={'999"),
     ({"logit_bias": {-1: 2}}, "logit_bias={-1: 2}: expected token ids"),
     ({"logit_bias": {True: 2}}, "logit_bias={True: 2}: expected token ids"),
     ({"logit_bias": {5: float("nan")}}, "logit_bias={5: nan}: expected token ids"),
     ({"logit_bias": [5]}, "logit_bias=[5]: expected token ids"),
     ({"logit_bias": dict.fromkeys(range(1025), 1)},
      "logit_bias=1,025 token ids: expected at most 1,024"),
     ({"stop": ""}, "stop=('',): expected a non-empty string"),
     ({"stop": [1]}, "stop=(1,)"),
     ({"stop": 5}, "stop=5"),
     ({"stop_token_ids": [-1]}, "stop_token_ids=[-1]: expected a list of token ids"),
     ({"ignore_eos": 1}, "ignore_eos=1: expected True or False"),
     ({"max_token": 3}, "unknown sampling option 'max_token'; did you mean max_tokens?"),
     ({"zzz": 3}, "known: max_tokens,")],
)  # fmt: skip
def test_a_bad_value_names_its_field_and_range(option: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        SamplingParams.parse(option)


@pytest.mark.parametrize(
    ("option", "message"),
    [({"priority": 0.5}, "priority=0.5: expected a whole number from -2147483648"),
     ({"deadline_ms": 0}, "deadline_ms=0: expected a whole number from 1 to 2147483647"),
     ({"cache_salt": 5}, "cache_salt=5: expected a string")],
)  # fmt: skip
def test_so_does_a_bad_option_of_a_request(option: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        RequestOptions(**option)


def test_what_is_not_given_is_filled_each_field_alone() -> None:
    recommended = Sampling(0.7, 40, 0.9, 0.05, 1.1, 0.2, 0.3)
    assert SamplingParams().filled(recommended).sampling() == recommended
    given = SamplingParams(temperature=0, top_p=1, max_tokens=3)
    filled = given.filled(recommended)
    assert filled.sampling() == Sampling(0, 40, 1, 0.05, 1.1, 0.2, 0.3)
    assert filled.max_tokens == 3
    assert filled.filled(Sampling()) == filled  # nothing is left to fill
    assert given.filled(None) == given
    assert given.sampling() == Sampling(temperature=0)


def test_beams_are_left_as_they_are_and_take_what_shapes_nothing() -> None:
    params = SamplingParams(beam_width=4, n=4, temperature=0, length_penalty=-1.5)
    assert (params.beam_width, params.n, params.early_stopping) == (4, 4, False)
    beams = SamplingParams(beam_width=2)
    assert beams.filled(Sampling(0.7, 40)) == beams
    off = asdict(Sampling(temperature=0))
    assert SamplingParams(beam_width=2, **off).sampling() == Sampling(temperature=0)


def test_a_temperature_that_no_float32_holds_is_greedy() -> None:
    for value, greedy in [(0, True), (2.0**-150, True), (2.0**-149, False), (0.5, False)]:
        assert Sampling(temperature=value).greedy is greedy
        assert (np.float32(value) == 0) is np.bool_(greedy)


@pytest.mark.parametrize(
    ("name", "value"),
    [("top_k", 5), ("top_p", 0.5), ("min_p", 0.1), ("repetition_penalty", 1.1),
     ("presence_penalty", 0.1), ("frequency_penalty", 0.1), ("seed", 0), ("stop", ["x"]),
     ("logprobs", 0), ("prompt_logprobs", 0), ("logit_bias", {3: 1})],
)  # fmt: skip
def test_beams_are_not_drawn(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"{name}=.*: cannot be combined with beam_width"):
        SamplingParams.parse({"beam_width": 2, name: value})
