"""How a template begins reasoning, and how it is switched."""

from __future__ import annotations

from octavo.protocol.reasoning import ReasoningFormat, reasoning_of

ASKED = "{% for m in messages %}{{ m.content }}{% endfor %}"
TAGS = "{# <think> </think> #}"
OPENS = (
    ASKED + "{% if add_generation_prompt %}<think>\n{% endif %}{% if false %}</think>{% endif %}"
)
SWITCHED = (
    TAGS + ASKED + "{% if enable_thinking is defined and enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% endif %}"
)


def test_a_template_without_the_tags_has_none() -> None:
    for template in (None, "", ASKED, ASKED + "<think>"):
        assert reasoning_of(template) is None


def test_the_prompt_ends_with_neither_tag_or_one() -> None:
    think = ReasoningFormat("<think>", "</think>")
    assert reasoning_of(TAGS + ASKED) == think
    assert reasoning_of(ASKED + "[THINK][/THINK] Go") == ReasoningFormat("[THINK]", "[/THINK]")
    assert reasoning_of(OPENS) == ReasoningFormat("<think>", "</think>", "opened")
    by_default = ReasoningFormat("<think>", "</think>", switch="enable_thinking")
    assert reasoning_of(SWITCHED) == by_default
    assert reasoning_of(SWITCHED, {"enable_thinking": True}) == by_default
    off = reasoning_of(SWITCHED, {"enable_thinking": False})
    assert off == ReasoningFormat("<think>", "</think>", "closed", "enable_thinking")


def test_a_template_that_fails_is_the_business_of_who_renders_it() -> None:
    for template in (TAGS + "{{ raise_exception('no') }}", TAGS + "{% if"):
        assert reasoning_of(template) == ReasoningFormat("<think>", "</think>")


def test_a_grammar_begins_after_the_closing_tag_where_one_is_sure_to_come() -> None:
    assert ReasoningFormat("<think>", "</think>", "opened").after == "</think>"
    assert ReasoningFormat("<think>", "</think>", "closed").after is None
    assert ReasoningFormat("<think>", "</think>").after is None


def test_efforts_are_told_where_the_template_has_a_place_for_them() -> None:
    def told(template: str, effort: str | None) -> dict[str, object]:
        found = reasoning_of(TAGS + template)
        assert found is not None
        return found.arguments(effort)

    switch, effort = "{% if thinking %}{% endif %}", "{{ reasoning_effort }}"
    assert told(switch, None) == told(ASKED, "high") == {}
    assert told(switch, "low") == {"thinking": True}
    assert told(switch, "none") == {"thinking": False}
    assert told(effort, "low") == {"reasoning_effort": "low"}
    assert told(effort, "none") == {}
    assert told(switch + effort, "high") == {"thinking": True, "reasoning_effort": "high"}
