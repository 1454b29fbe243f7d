"""The hit rates of the papers: prompts small enough to count by hand, and real dialogues."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from benchmarks import data, hit_rates, policy
from benchmarks.data import Turn
from benchmarks.hit_rates import at_once, in_series
from benchmarks.ideal_prefix import ComputedBefore, reusable
from benchmarks.modelless import distinct_prompt
from benchmarks.prompts import ByteEncoder, Exchange, dialogue, find_encoder
from octavo.planning.simulate import TraceRequest, simulate

EXAMPLES = [1, 2, 3, 4, 5, 6]
FEW_SHOT = [
    [*EXAMPLES, 7, 8, 9, 10],
    [*EXAMPLES, 20, 21],  # 6 tokens found
    [*EXAMPLES, 7, 8, 9, 10],  # 9: the last token runs
    [*EXAMPLES, 20, 22, 23],  # 7
]


def test_few_shot_prompts_find_their_common_part_to_the_token() -> None:
    hits = in_series([[Exchange(prompt, [])] for prompt in FEW_SHOT], block_size=4)
    assert (hits.prompt, hits.found, hits.ideal, hits.not_ideal) == (37, 22, 22, [])
    assert hits.ideal_blocks == 4 + 8 + 4


def test_a_prompt_finds_the_answer_before_it() -> None:
    turns = [Exchange([1, 2, 3], [4, 5]), Exchange([1, 2, 3, 4, 5, 6, 7], [8])]
    hits = in_series([turns], from_turn=1, block_size=4)
    assert (hits.prompt, hits.found, hits.ideal_blocks) == (7, 5, 4)
    assert in_series([turns], block_size=4).prompt == 10


def test_what_falls_short_of_the_ideal_is_said_to() -> None:
    hits = hit_rates.Hits(prompt=10, found=6, ideal=7, ideal_blocks=4, not_ideal=[3])
    figure = hit_rates.figure("made up", ByteEncoder(), hits)
    assert (figure.ours, figure.met) == (60.0, False)
    assert figure.goal == "70.00 % ideal (40.00 % by whole blocks)"


def test_prompts_offered_at_once_compute_their_whole_common_blocks_once() -> None:
    common = distinct_prompt(1, 70)
    prompts = [[*common, 100 + i, *range(i)] for i in range(5)]
    found = [r.cache.matched_tokens for r in at_once(prompts) if r.cache]
    assert len(found) == 5
    assert found[0] == 0
    assert all(64 <= each <= 70 for each in found[1:])


@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=12), max_size=12))
def test_the_sorted_list_finds_the_longest_common_prefix(sequences: list[list[int]]) -> None:
    before = ComputedBefore()
    for i, tokens in enumerate(sequences):
        slow = 0
        for other in sequences[:i]:
            shared = [a == b for a, b in zip(tokens, other, strict=False)]
            slow = max(slow, (*shared, False).index(False))
        assert before.longest_prefix(tokens) == slow
        before.add(tokens)


def test_the_last_token_of_a_prompt_is_never_reusable() -> None:
    assert reusable(10, 10) == 9
    assert reusable(10, 10, block_size=4) == 8
    assert reusable(8, 8, block_size=4) == 4
    assert reusable(1, 1) == 0


def test_each_turn_of_a_dialogue_begins_with_the_one_before() -> None:
    exchanges = list(dialogue(ByteEncoder(), [Turn("Hi", "Hello!"), Turn("Bye", "")]))
    (first, answer), (second, nothing) = exchanges
    assert second[: len(first) + len(answer)] == first + answer
    assert (bytes(answer), nothing) == (b"Hello!", [])


# ---- eviction


def test_an_ordered_dict_evicts_tails_first() -> None:
    ids = [(1, 2, 3), (4,), (1, 2, 5)]
    trace = [TraceRequest(512 * len(each), each) for each in ids]
    assert policy.plain_lru(trace, 3) == 1024  # 3 went for 4
    assert policy.plain_lru(trace, None) == 1024
    assert policy.plain_lru([*trace, trace[1]], 3) == 1024  # 4 went for 5
    assert policy.plain_lru([*trace, trace[1]], None) == 1536
    figure = policy.lru_figure("made up", trace, simulate(trace, num_blocks=3, policy="lru"), 0.0)
    assert (figure.met, figure.counts["hit_tokens"]) == (True, 1024)


def test_real_dialogues_find_all_that_was_computed(public_data: Path) -> None:
    encoder = find_encoder()
    for turns, from_turn in (
        (data.mt_bench(public_data), 1),
        (data.sgd_dialogues(public_data), 0),
    ):
        hits = hit_rates.chats(encoder, turns[:20], from_turn)
        assert (hits.found, hits.not_ideal) == (hits.ideal, [])
        assert hits.ideal_blocks < hits.ideal


def test_real_few_shot_prompts_find_all_that_was_computed(public_data: Path) -> None:
    encoder = find_encoder()
    prompts = [encoder.text(prompt) for prompt in data.bbh_prompts(public_data)[::10]]
    hits = in_series([[Exchange(prompt, [])] for prompt in prompts])
    assert (hits.found, hits.not_ideal) == (hits.ideal, [])
    assert 0.85 < hits.rate < 0.98
    assert hit_rates.at_once_figure(prompts, hits).met
