"""What follows an answer, in ids: of templates that leave earlier turns alone, and others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from octavo.errors import UsageError
from octavo.server.next_turn import Encode, Kept, Messages, RewrittenError, as_rendered, go_on
from octavo.tokenizer.chat_template import ChatTemplate

CHATML = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] | trim }}~\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
END = ord("~")  # ids are characters
FORGETFUL = CHATML.replace("{{ m['content'] | trim }}", (
    "{% if m['role'] != 'assistant' or loop.last %}{{ m['content'] }}{% endif %}"
))  # fmt: skip
OPENING = CHATML.replace("<assistant>", "<assistant>[no thoughts]")
HI = {"role": "user", "content": "hi"}
MORE = {"role": "user", "content": "and?"}


def by(template: str, **args: Any) -> Encode:
    async def encode(messages: Messages, generation: bool) -> list[int]:
        text = ChatTemplate(template, "", "").render(
            messages, add_generation_prompt=generation, **args
        )
        return list(map(ord, text))

    return encode


def text(ids: Sequence[int]) -> str:
    return "".join(map(chr, ids))


def answered(encode: Encode, reply: str, *, before: Kept | None = None) -> Kept:
    prompt = before or as_rendered(asyncio.run(encode([HI], True)))
    return prompt.answered(list(map(ord, reply)), frozenset([END]))


def following(encode: Encode, kept: Kept, *messages: dict[str, str]) -> Kept:
    return asyncio.run(go_on(encode, kept, messages[:-1], messages[-1:]))


@pytest.mark.parametrize("end", ["~", ""])  # by itself, or broken off
def test_an_answer_stays_as_it_was_generated(end: str) -> None:
    encode = by(CHATML)
    kept = answered(encode, " yes " + end)
    reply = {"role": "assistant", "content": "yes"}
    once = following(encode, kept, HI, reply, MORE)
    assert text(once.ids) == "<user>hi~\n<assistant> yes ~\n<user>and?~\n<assistant>"
    twice = following(
        encode, answered(encode, "so~", before=once), HI, reply, MORE,
        {"role": "assistant", "content": "so"}, HI,
    )  # fmt: skip
    assert text(twice.ids) == text(once.ids) + "so~\n<user>hi~\n<assistant>"


def test_what_has_no_answer_goes_on_too() -> None:
    encode = by(CHATML)
    kept = as_rendered(asyncio.run(encode([HI], False)))
    assert text(following(encode, kept, HI, MORE).ids) == "<user>hi~\n<user>and?~\n<assistant>"


@pytest.mark.parametrize("template", [FORGETFUL, OPENING])
def test_a_template_that_rewrites_earlier_turns_is_refused(template: str) -> None:
    encode = by(template)
    kept = answered(encode, "yes~")
    with pytest.raises(RewrittenError, match="rewrites earlier turns"):
        following(encode, kept, HI, {"role": "assistant", "content": "yes"}, MORE)


def test_other_variables_are_told_from_that() -> None:
    named = "{{ name }}" + CHATML
    kept = answered(by(named, name="one"), "yes~")
    reply = {"role": "assistant", "content": "yes"}
    assert following(by(named, name="one"), kept, HI, reply, MORE).ids
    with pytest.raises(RewrittenError, match="not rendered as it was"):
        following(by(named, name="two"), kept, HI, reply, MORE)


def test_what_a_template_refuses_is_its_own_error() -> None:
    encode = by(CHATML + "{% if messages | length > 2 %}{{ raise_exception('no') }}{% endif %}")
    kept = answered(encode, "yes~")
    with pytest.raises(UsageError, match="no"):
        following(encode, kept, HI, {"role": "assistant", "content": "yes"}, MORE)
