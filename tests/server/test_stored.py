"""Kept answers are bounded by number and by bytes; the longest unused goes first."""

from __future__ import annotations

import pytest

from octavo.server import stored
from octavo.server.stored import StoredAnswer, StoredAnswers, weigh
from tests.server.live import Live


def answer(num_bytes: int = 0) -> StoredAnswer:
    return StoredAnswer(b"{}", (), None, num_bytes)


def test_the_longest_unused_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "MOST", 2)
    kept = StoredAnswers()
    for id in "ab":
        kept.add("ann", id, answer())
    assert kept.find("ann", "a") is not None
    kept.add("ann", "c", answer())
    kept.add("bob", "d", answer())
    assert [id for id in "abcd" if kept.find("ann", id)] == ["a", "c"]
    assert kept.remove("ann", "a")
    assert not kept.remove("ann", "a")
    assert not kept.remove("eve", "c")
    kept.add("ann", "e", answer())
    assert [id for id in "abcde" if kept.find("ann", id)] == ["c", "e"]


def test_bytes_are_bounded_but_for_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "MOST_BYTES", 100)
    kept = StoredAnswers()
    for id, size in (("a", 40), ("b", 40), ("c", 40), ("d", 200)):
        kept.add("", id, answer(size))
        assert kept.find("", id) is not None
    assert [id for id in "abcd" if kept.find("", id)] == ["d"]
    kept.add("", "e", answer(10))
    assert [id for id in "de" if kept.find("", id)] == ["e"]


def test_what_answers_share_is_counted_in_each(
    roomy: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each may be the last one that holds it."""
    monkeypatch.setattr(stored, "MOST_BYTES", 200_000)
    thought = {"type": "reasoning_text", "text": "x" * 60_000}
    said = [{"role": "user", "content": "hi"}, {"type": "reasoning", "content": [thought]}]
    ids: list[str] = []
    for _ in range(4):
        body = {"input": said if not ids else "go on", "max_output_tokens": 1}
        more = {"previous_response_id": ids[-1]} if ids else {}
        answer = roomy.post("/v1/responses", {**body, **more})
        assert answer.status == 200, answer
        ids.append(answer.json["id"])
    assert [roomy.get(f"/v1/responses/{id}").status for id in ids] == [404, 200, 200, 200]


def test_all_of_a_message_is_weighed() -> None:
    message = {"role": "user", "content": "x" * 1000, "calls": [{"arguments": {"y" * 1000: [1]}}]}
    assert 2000 < weigh([message]) < 4000
