"""Chat templates: the dialect Hugging Face templates are written in, errors on one line, a closed
sandbox."""

from __future__ import annotations

from typing import Any

import pytest

from octavo.errors import UsageError
from octavo.tokenizer import ChatTemplate

USER = [{"role": "user", "content": "hi"}]


def render(source: str, messages: Any = USER, **kwargs: Any) -> str:
    return ChatTemplate(source, "<s>", "</s>").render(messages, **kwargs)


def test_blocks_leave_no_blank_lines() -> None:
    lines = ["{% for m in messages %}", "  {% if m.role %}", "[{{ m.content }}]", "  {% endif %}"]
    assert render("\n".join([*lines, "{% endfor %}"])) == "[hi]\n"


def test_the_names_templates_rely_on() -> None:
    assert render("{{ bos_token }}{{ messages[0]['content'] }}{{ eos_token }}") == "<s>hi</s>"
    assert render("{{ 'go' if add_generation_prompt else 'stop' }}") == "go"
    source = "{{ add_generation_prompt }}"
    assert render(source, add_generation_prompt=False) == "False"
    assert render("{{ tools is none }}") == "True"
    assert render("{{ tools }}", tools=["fold"]) == "['fold']"
    assert render("{{ strftime_now('%Y') }}").isdigit()
    assert render("{{ strftime_now('%Y') }}", strftime_now=lambda form: "1455") == "1455"


def test_loops_can_break() -> None:
    source = "{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}"
    assert render(source) == "01"


def test_generation_marks_are_transparent() -> None:
    assert render("a{% generation %}{{ messages[0].content }}{% endgeneration %}b") == "ahib"


def test_tojson_writes_text_as_it_is() -> None:
    value = {"b": "<é>", "a": [1, True]}
    assert render("{{ v | tojson }}", v=value) == '{"b": "<é>", "a": [1, true]}'
    want = '{\n "a": [\n  1,\n  true\n ],\n "b": "<é>"\n}'
    assert render("{{ v | tojson(indent=1, sort_keys=true) }}", v=value) == want


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% if %}", "does not compile: Expected an expression"),
        ("{{ raise_exception('roles must\nalternate') }}", "failed: roles must alternate"),
        ("{{ messages[0].absent.deeper }}", "failed: .* has no attribute 'absent'"),
        ("{{ 'a' + messages[0].absent }}", "failed: .* has no attribute 'absent'"),
        ("{{ 'a' + 1 }}", "failed: can only concatenate str"),
        ("{{ ''.__class__.__mro__ }}", "failed: access to attribute '__class__'"),
        ("{{ messages.append(1) }}", "failed: access to attribute 'append' of 'list'"),
        ("{% for i in range(10**9) %}{% endfor %}", "failed: Range too big"),
        ("{{ 1 / 0 }}", "failed: division by zero"),
    ],
)
def test_whatever_a_template_does_wrong_is_one_line(source: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        render(source)
    assert "\n" not in str(caught.value)
