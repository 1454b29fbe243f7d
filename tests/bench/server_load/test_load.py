"""A load against an asker in the place of a server: who is open when, and who failed."""

from __future__ import annotations

import asyncio
import json

import pytest

from octavo.bench.server_load.load import Load, offer
from octavo.bench.server_load.stream import AskError, Received, Reply, Usage, read_reply


def reply(index: int) -> Reply:
    return Reply(0, (1.0,), Usage(index, 1, None))


def received(index: int) -> Received:
    usage = {"prompt_tokens": index, "completion_tokens": 1}
    event = json.dumps({"choices": [{"text": "x"}], "usage": usage})
    return Received(0, [(1.0, f"data: {event}\n\n".encode())])


class Asker:
    """Answers in turns of the event loop; those that are named fail."""

    def __init__(self, *failing: int) -> None:
        self.failing = failing
        self.open: set[int] = set()
        self.most = 0
        self.order: list[int] = []

    async def ask(self, body: bytes) -> Received:
        index = int(body)
        self.order.append(index)
        self.open.add(index)
        self.most = max(self.most, len(self.open))
        for _ in range(10 - index % 7):  # some overtake others
            await asyncio.sleep(0)
        self.open.remove(index)
        if index in self.failing:
            raise AskError(f"{index} fails")
        return received(index)


def run(asker: Asker, count: int, concurrency: int | None, gap: float = 0) -> tuple[Load, int]:
    ended = 0

    def count_one() -> None:
        nonlocal ended
        ended += 1

    bodies = [str(i).encode() for i in range(count)]
    arrivals = [gap * i for i in range(count)]
    return asyncio.run(offer(asker, bodies, arrivals, concurrency, count_one)), ended


@pytest.mark.parametrize(("concurrency", "most"), [(None, 20), (1, 1), (3, 3), (50, 20)])
def test_so_many_are_open_at_once_and_no_more(concurrency: int | None, most: int) -> None:
    asker = Asker()
    load, ended = run(asker, 20, concurrency)
    assert load.outcomes == tuple(reply(i) for i in range(20))
    assert (asker.most, ended) == (most, 20)
    assert asker.order == list(range(20))
    assert load.seconds > 0


def test_requests_are_sent_in_the_order_they_arrive() -> None:
    asker = Asker()
    run(asker, 10, None, gap=1e-4)
    assert asker.order == list(range(10))


def test_one_that_fails_harms_no_other() -> None:
    load, ended = run(Asker(2, 4), 6, 2)
    assert [str(e) for e in load.outcomes if isinstance(e, AskError)] == ["2 fails", "4 fails"]
    assert [e for e in load.outcomes if isinstance(e, Reply)] == [reply(i) for i in (0, 1, 3, 5)]
    assert ended == 6


def test_nothing_is_read_of_an_answer_before_all_have_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would keep the pieces of other answers waiting, and their times would be late."""
    asker, asked = Asker(), []

    def read(found: Received) -> Reply:
        asked.append((len(asker.order), len(asker.open)))
        return read_reply(found)

    monkeypatch.setattr("octavo.bench.server_load.load.read_reply", read)
    run(asker, 6, 2)
    assert asked == [(6, 0)] * 6


def test_one_that_is_no_answer_failed() -> None:
    class Cut:
        async def ask(self, body: bytes) -> Received:
            return Received(0, [(1.0, b'data: {"choices": [{"text": "x"}]}\n\n')])

    load = asyncio.run(offer(Cut(), [b"0"], [0.0], None, lambda: None))
    assert [str(each) for each in load.outcomes] == [
        "its stream ended without usage and [DONE]: the answer is cut off"
    ]


def test_a_bug_is_no_failed_request() -> None:
    class Broken:
        async def ask(self, body: bytes) -> Received:
            raise ZeroDivisionError

    with pytest.raises(ExceptionGroup):
        asyncio.run(offer(Broken(), [b"0"], [0.0], None, lambda: None))
