"""A conversation goes on from the ids that were drawn, as long as they read as what is encoded."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from octavo.cli.transcript import Transcript

WORDS = {1: "Par", 2: "is", 3: "Paris", 4: " ", 5: "no", 20: "hi", 21: "why"}
USER, END, ANSWER = 50, 51, 52


class Words:
    """Ids from 50 are control tokens; "Paris" is one id or two."""

    def is_control(self, token_id: int) -> bool:
        return token_id >= 50

    def decode(self, ids: Iterable[int], *, continuation: bool) -> str:
        assert continuation
        return "".join(WORDS[i] for i in ids if i < 50)


FIRST = [USER, 20, END, ANSWER]
ASKED_AGAIN = [END, USER, 21, END, ANSWER]


@pytest.fixture
def transcript() -> Transcript:
    return Transcript(Words())  # type: ignore[arg-type]


def test_a_first_prompt_is_sent_as_it_is_and_after_clear_any(transcript: Transcript) -> None:
    assert transcript.prompt(FIRST) == FIRST
    transcript.note(FIRST, FIRST, [1, 2])
    transcript.clear()
    assert transcript.prompt([*FIRST, 3, *ASKED_AGAIN]) == [*FIRST, 3, *ASKED_AGAIN]


@pytest.mark.parametrize(
    "drawn",
    [[1, 2],  # cut short: the template ends the turn
     [1, 2, END],  # ended by the model: the end stands there once
     [4, 1, 2, END]],  # a blank in front, which the template trims
)  # fmt: skip
def test_drawn_ids_take_the_place_of_encoded_ones(transcript: Transcript, drawn: list[int]) -> None:
    transcript.note(FIRST, FIRST, drawn)
    kept = [i for i in drawn if i != END]
    assert transcript.prompt([*FIRST, 3, *ASKED_AGAIN]) == [*FIRST, *kept, *ASKED_AGAIN]


def test_every_answer_of_a_long_conversation_stays_as_it_was_drawn(transcript: Transcript) -> None:
    encoded, sent = FIRST, transcript.prompt(FIRST)
    for _ in range(3):
        transcript.note(encoded, sent, [1, 2, END])
        encoded = [*encoded, 3, *ASKED_AGAIN]
        sent = transcript.prompt(encoded)
    assert sent == [*FIRST, *[1, 2, *ASKED_AGAIN] * 3]


@pytest.mark.parametrize(
    ("encoded", "drawn"),
    [([*FIRST, 5, *ASKED_AGAIN], [1, 2, END]),  # another text: a stop string cut it
     ([*FIRST, 3, *ASKED_AGAIN], [1, USER, 2, END]),  # a control token inside the answer
     ([*FIRST, 3], [1, 2]),  # the template marks no end of a turn
     ([USER, 21, END, ANSWER, 3, *ASKED_AGAIN], [1, 2]),  # other words before the answer
     ([USER, 20], [1, 2])],  # a conversation that is shorter
)  # fmt: skip
def test_what_does_not_read_the_same_is_sent_as_encoded(
    transcript: Transcript, encoded: list[int], drawn: list[int]
) -> None:
    transcript.note(FIRST, FIRST, drawn)
    assert transcript.prompt(encoded) == encoded
