"""The sampling that a file recommends: all of it that there is here, or none; and what is said."""

from __future__ import annotations

import numpy as np
import pytest

from octavo.sampling_params import Sampling
from octavo.weights.gguf_header import MetadataValue
from octavo.weights.recommended_sampling import recommended_sampling


def read(**keys: MetadataValue) -> tuple[Sampling | None, list[str]]:
    notes: list[str] = []
    metadata = {f"general.sampling.{key}": value for key, value in keys.items()}
    return recommended_sampling({"general.name": "x", **metadata}, note=notes.append), notes


def f32(value: float) -> float:
    """Round a value as a file has it."""
    return float(np.float32(value))


def test_every_key_with_a_counterpart_is_taken() -> None:
    found, notes = read(
        temp=f32(0.7), top_k=40, top_p=f32(0.95), min_p=f32(0.05), penalty_repeat=f32(1.1),
        penalty_present=f32(0.2), penalty_freq=f32(0.3), penalty_last_n=-1,
    )  # fmt: skip
    assert found == Sampling(0.7, 40, 0.95, 0.05, 1.1, 0.2, 0.3)
    assert notes == []


def test_what_a_file_leaves_out_shapes_nothing() -> None:
    assert read() == (None, [])
    assert read(top_k=20) == (Sampling(temperature=1.0, top_k=20), [])
    assert read(temp=0) == (Sampling(temperature=0), [])  # an integer where a float is usual
    assert read(top_k=-1) == (Sampling(), [])


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("temp", -1.0, "temperature=-1.0: expected a number from 0 to 100"),
        ("temp", float("nan"), "temperature=nan"),
        ("temp", 1e300, "temperature=1e+300"),
        ("temp", True, "temperature=True"),
        ("top_p", "0.9", "top_p='0.9': expected a number"),
        ("top_k", 1.5, "top_k=1.5: expected a whole number"),
        ("min_p", np.array([1, 2]), "min_p=[1, 2]: expected a number from 0 to 1"),
        ("penalty_repeat", 0.0, "repetition_penalty=0.0: expected a number above 0 and"),
    ],
)
def test_one_value_that_cannot_be_leaves_none(key: str, value: MetadataValue, why: str) -> None:
    found, (note,) = read(**{"temp": 0.5, "top_k": 7, key: value})
    assert found is None
    assert note.startswith(f"the sampling that it recommends is not used: {why}")


def test_a_key_without_a_counterpart_is_named_and_the_others_are_taken() -> None:
    found, notes = read(temp=0.5, mirostat=2, mirostat_tau=5.0, sequence="top_k;temp")
    assert found == Sampling(temperature=0.5)
    assert notes == [
        "general.sampling.mirostat, general.sampling.sequence: Octavo has no such sampling, "
        "so the rest is used without it"
    ]
    assert read(warmth=3)[1] != []  # unknown: it may mean anything
    assert read(xtc_probability=np.array([0.5]))[1] != []


@pytest.mark.parametrize(
    "off",
    [
        {"mirostat": 0, "mirostat_tau": 5.0, "mirostat_eta": 0.1},
        {"xtc_probability": 0.0, "xtc_threshold": 0.1},
        {"typ_p": 1.0, "sequence": ""},
        {"penalty_last_n": 64},  # of a penalty that there is not
        {"penalty_last_n": -1, "penalty_repeat": 1.5},  # all tokens: what a penalty is over here
    ],
)
def test_a_key_that_changes_nothing_is_not_spoken_of(off: dict[str, MetadataValue]) -> None:
    assert read(temp=0.5, **off)[1] == []


def test_a_penalty_over_the_last_tokens_only_is_one_over_all_and_said() -> None:
    found, (note,) = read(penalty_repeat=1.5, penalty_last_n=64)
    assert found == Sampling(repetition_penalty=1.5)
    assert note.startswith("general.sampling.penalty_last_n: ")
