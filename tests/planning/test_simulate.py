"""The policy simulator: hits by hand, then the real traces where they are at hand."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import pytest

from octavo.errors import TraceError, UsageError
from octavo.planning.simulate import TraceRequest, read_trace, simulate

# (input_length, hash_ids). Two prompts share blocks 0 and 1; the second has 88 tokens in block 5.
SHARED = [(1536, [0, 1, 2]), (1624, [0, 1, 4, 5]), (1536, [0, 1, 2])]


def line(input_length: object, hash_ids: object, **more: object) -> str:
    fields = {"timestamp": 0, "input_length": input_length, "output_length": 9}
    return json.dumps({**fields, "hash_ids": hash_ids, **more})


def requests(*asked: tuple[int, Sequence[int]]) -> list[TraceRequest]:
    return [TraceRequest(length, tuple(ids)) for length, ids in asked]


def plain_lru(trace: Sequence[TraceRequest], num_blocks: int) -> int:
    """Tokens hit by the definition of the reference figures: no pool, no tree."""
    cached: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for request in trace:
        known = 0
        while known < len(request.hash_ids) and request.hash_ids[known] in cached:
            known += 1
        hits += min(512 * known, request.input_length)
        for block in reversed(request.hash_ids):
            cached[block] = None
            cached.move_to_end(block)
        while len(cached) > num_blocks:
            cached.popitem(last=False)
    return hits


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trace.jsonl"


def test_a_trace_is_read_line_by_line(path: Path) -> None:
    path.write_text("".join(line(length, ids, turn=1) + "\n" for length, ids in SHARED))
    assert read_trace(path) == requests(*SHARED)


def test_blank_lines_are_passed_over_and_counted(path: Path) -> None:
    path.write_bytes(f"{line(1, [0])}\r\n\r\n  \n{line(1, [0])}\n\n".encode())
    assert read_trace(path) == requests((1, [0]), (1, [0]))
    path.write_bytes(b"\xef\xbb\xbf" + f"{line(1, [0])}\r\n".encode())
    assert read_trace(path) == requests((1, [0]))
    path.write_bytes(f"\ufeff{line(1, [0])}".encode("utf-16-le"))
    with pytest.raises(UsageError, match=r"trace\.jsonl is UTF-16: save it as UTF-8"):
        read_trace(path)


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [("{", "line 2: not JSON: Expecting property name .* at character 3"),
     ("[" * 100_000, "line 2: not JSON: .* too deep"),
     ('{"timestamp": ' + "9" * 5000 + "}", "line 2: not JSON: a number too long"),
     ("[1]", "line 2: expected a JSON object"),
     ("\n[1]", "line 3: expected a JSON object"),
     (line(1, [0], timestamp=None), "line 2: timestamp: expected a whole number from 0 on"),
     (line(1, [0], output_length=-1), "line 2: output_length: expected a whole number"),
     (line(1.5, [0]), "line 2: input_length: expected a whole number"),
     (line(True, [0]), "line 2: input_length: expected a whole number"),
     (line(1, 0), "line 2: hash_ids: expected a list of whole numbers"),
     (line(1, [2**63]), "line 2: hash_ids: expected a list of whole numbers"),
     (line(513, [0]), "line 2: hash_ids: expected 2, one for every 512 tokens of input_length"),
     (line(512, [0, 1]), "line 2: hash_ids: expected 1, .* found 2"),
     (line(0, []), "line 2: input_length: expected at least 1 token"),
     (line(1, []), "line 2: hash_ids: expected 1, .* found 0")],
)  # fmt: skip
def test_a_bad_line_is_named(path: Path, bad: str, complaint: str) -> None:
    path.write_text(f"{line(1, [0])}\n{bad}\n{line(1, [0])}\n")
    with pytest.raises(TraceError, match=f"trace.jsonl, {complaint}"):
        read_trace(path)


def test_bytes_that_are_no_text_and_a_file_without_requests_are_refused(path: Path) -> None:
    path.write_bytes(b'{"timestamp": "\xff"}\n')
    with pytest.raises(TraceError, match="line 1: not UTF-8 at byte 15"):
        read_trace(path)
    path.write_bytes(b"")
    with pytest.raises(TraceError, match="no requests in it"):
        read_trace(path)


def test_shared_prefixes_hit_when_nothing_is_evicted() -> None:
    found = simulate(requests(*SHARED), num_blocks=None, policy="lru")
    assert (found.hit_tokens, found.input_tokens) == (1024 + 1536, 1536 + 1624 + 1536)
    assert found.evictions == 0
    # The first takes, registers and frees 3; the second finds 2, takes and registers 2, frees 4;
    # the third finds 3 and frees 3.
    assert found.block_operations == 9 + 10 + 6
    assert found.hit_rate == pytest.approx(2560 / 4696)


def test_lru_evicts_the_tail_of_the_oldest_request_first() -> None:
    # 5 blocks in the pool: the third request takes two, and block 2 goes before 1 and 0.
    trace = requests(*SHARED[:1], (1024, [7, 8]), (512, [9]), *SHARED[:1])
    found = simulate(trace, num_blocks=5, policy="lru")
    assert found.hit_tokens == 1024  # 0 and 1; block 2 had made room for 9
    assert found.evictions == 2  # 2 for 9, and then 8, the oldest that is not held, for 2


def test_a_prompt_that_is_found_counts_its_tokens_not_its_blocks_and_needs_its_prefix() -> None:
    found = simulate(requests((600, [0, 1]), (600, [0, 1])), num_blocks=2, policy="lru")
    assert (found.hit_tokens, found.input_tokens) == (600, 1200)
    # Equal ids after another prefix are other blocks.
    found = simulate(requests((1024, [0, 1]), (1024, [5, 1])), num_blocks=None, policy="lru")
    assert found.hit_tokens == 0


def test_cost_keeps_the_reused_prompt_that_lru_loses() -> None:
    # Of 10 blocks, LRU keeps the last five prompts; the first one, used twice, comes after ten.
    reused = (1024, [0, 1])
    once = [(1024, [2 * i, 2 * i + 1]) for i in range(1, 11)]
    trace = requests(reused, reused, *once, reused)
    assert simulate(trace, num_blocks=10, policy="lru").hit_tokens == 1024
    assert simulate(trace, num_blocks=10, policy="cost").hit_tokens == 2048


@pytest.mark.parametrize("policy", ["lru", "cost"])
def test_a_pool_may_be_of_any_size_that_holds_each_request(policy: str) -> None:
    """It takes no more memory than the trace can use."""
    huge = simulate(requests(*SHARED), num_blocks=10**15, policy=policy)
    assert huge.num_blocks == 10**15
    assert (huge.hit_tokens, huge.evictions) == (1024 + 1536, 0)
    with pytest.raises(UsageError, match="3 blocks: a request of the trace has 4"):
        simulate(requests(*SHARED), num_blocks=3, policy=policy)


# Hit rates published with the slices.
SIZES = (2000, 5000, 10_000, 20_000, None)
PUBLISHED = {
    "conversation": (0.050, 0.110, 0.210, 0.281, 0.325),
    "synthetic": (0.040, 0.087, 0.176, 0.295, 0.336),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_figures_and_what_cost_gains_on_them(name: str, public_data: Path) -> None:
    trace = read_trace(public_data / "traces" / f"mooncake_{name}.part1.jsonl")
    for num_blocks, published in zip(SIZES, PUBLISHED[name], strict=True):
        lru = simulate(trace, num_blocks=num_blocks, policy="lru")
        assert lru.hit_tokens == plain_lru(trace, num_blocks or 10**9)
        # They were rounded twice, to four digits first: 0.08753 is 0.0875 is 0.087.
        assert f"{round(lru.hit_rate, 4):.3f}" == f"{published:.3f}"
        if num_blocks is not None:
            cost = simulate(trace, num_blocks=num_blocks, policy="cost")
            least = 1.08 if num_blocks <= 5000 else 1.0
            assert cost.hit_tokens >= least * lru.hit_tokens, num_blocks
