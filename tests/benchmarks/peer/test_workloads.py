"""What the engines are asked: the same of all, new in every round, as long as it is said to be."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from benchmarks.peer.workloads import QUICK, WORKLOADS, from_dict
from benchmarks.peers import chosen
from tests.benchmarks.peer.fakes import EVERY


def test_prompts_are_of_their_lengths_and_of_their_seed() -> None:
    for work in (*EVERY, *WORKLOADS.values()):
        prompts = work.prompts(100, seed=0)
        assert list(map(len, prompts)) == [each.prompt for each in work.requests]
        assert {token for prompt in prompts for token in prompt} <= set(range(100))
        assert work.prompts(100, seed=0) == prompts != work.prompts(100, seed=1)


def test_what_is_shared_is_shared_and_nothing_else() -> None:
    work = WORKLOADS["shared-32"]
    prompts = work.prompts(10**6, seed=0)
    assert {tuple(each[:1024]) for each in prompts} == {tuple(prompts[0][:1024])}
    own = [tuple(each[1024:]) for each in prompts]
    assert len(set(own)) == 32
    assert {len(each) for each in own} == {64}


def test_a_chat_is_as_sharegpt() -> None:
    lengths = WORKLOADS["chat-64"].requests
    assert len(lengths) == 64
    assert all(4 <= size <= 1024 for each in lengths for size in each)
    # The mean of 64 draws is off by less than three of its deviations, 1.31 / 8 of the mean.
    assert sum(each.prompt for each in lengths) / 64 == pytest.approx(161, rel=3 * 1.31 / 8)
    assert sum(each.new for each in lengths) / 64 == pytest.approx(338, rel=3 * 1.31 / 8)


def test_a_workload_is_the_same_after_json() -> None:
    for work in WORKLOADS.values():
        assert from_dict(json.loads(json.dumps(asdict(work)))) == work


def test_names_and_groups_choose() -> None:
    def names(only: str, quick: bool = False) -> list[str]:
        return [each.name for each in chosen(only, quick=quick, longest=8192)]

    assert names("") == list(WORKLOADS)
    assert names("", quick=True) == list(QUICK)
    assert names("batch-16,prefill", quick=True) == ["prefill-512", "prefill-2048", "batch-16"]
    with pytest.raises(ValueError, match="--only speed: expected some of prefill-512, "):
        names("batch,speed")
    with pytest.raises(ValueError, match=r"decode-2048 takes 2,112 tokens and the model has 2,048"):
        chosen("decode", quick=False, longest=2048)
