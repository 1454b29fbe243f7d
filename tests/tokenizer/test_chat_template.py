"""Chat templates: the dialect Hugging Face templates are written in, errors on one line, a closed
sandbox."""

from __future__ import annotations

import json
from typing import Any

import jinja2.sandbox
import pytest

from octavo.errors import UsageError
from octavo.tokenizer.chat_template import ChatTemplate, variables_of

USER = [{"role": "user", "content": "hi"}]


def render(source: str, messages: Any = USER, **more: Any) -> str:
    return ChatTemplate(source, "<s>", "</s>").render(messages, **more)


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


HARMLESS = [
    "{% for m in messages %}{{ loop.index }}/{{ loop.length }}{{ m.role ~ ': ' ~ m['content'] }}"
    "{% if not loop.last %}, {% endif %}{{ loop.previtem.role if not loop.first }}{% endfor %}",
    "{% for a, b in [(1, 2), (3, [4, '5'])] %}{{ a ~ b }}{% else %}none{% endfor %}",
    "{% for m in messages if m.role == 'x' %}{% else %}none{% endfor %}",
    "{% for x in [1, [2, [3]]] recursive %}{{ loop(x) if x is iterable else x }}{% endfor %}",
    "{% set ns = namespace(n=0, l=[]) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
    "{% set ns.l = ns.l + [m.content] %}{% endfor %}{{ ns.n }}{{ ns.l }}{{ ns.l * 2 }}",
    "{% macro f(a, b=2) %}{{ a }}{{ b }}{{ varargs }}{{ kwargs }}{{ caller() if caller }}"
    "{% endmacro %}{{ f(1) }}{{ f(1, 2, 3, c=4) }}{% call f(0) %}x{% endcall %}",
    "{% set x %}{{ messages[0].content | upper }}{% endset %}{{ x }}{{ x[1:] }}{{ x[::-1] }}",
    "{% filter upper %}a{{ 'b' }}{% endfilter %}{% set y | trim %} z {% endset %}{{ y }}",
    "{{ ['b', 'a'] | sort | join('-') }}{{ messages | map(attribute='role') | join(', ') }}",
    "{{ messages | selectattr('role', 'equalto', 'x') | list }}"
    "{{ 'yes' if [] | select else 'no' }}",
    "{{ messages | tojson }}{{ messages | tojson(indent=2) }}"
    "{{ [1, {'a': none}] | tojson(separators=(',', ':'), sort_keys=true) }}{{ 'é<' | tojson }}",
    "{{ 'call 12345678901: %s' % 'x' }}",
    "{{ '%s is %5.1f|%-4d|' % ('x', 1.25, 7) }}{{ '%(a)s' % {'a': 1} }}{{ '%03d' | format(5) }}",
    "{{ '{:>5}|{a!r}|{0[0]}'.format('xy', a='q') }}{{ '{b}'.format_map({'b': 1}) }}",
    "{{ ('<{}>' | safe).format('<') }}{{ ('a' | safe) + '<' }}{{ '<' | e }}{{ ['<'] | join('&') }}",
    "{{ 'a b'.split() }}{{ 'a,b'.split(',', 1) }}{{ 'a</t>b</t>c'.rsplit('</t>', 1)[-1] }}",
    "{{ '  a '.strip() }}{{ 'xax'.strip('x') }}{{ ' a' | trim }}{{ 'a'.center(5, '*') }}|",
    "{{ 'aXbX'.replace('X', '--', 1) }}{{ 'aXb' | replace('X', '--') }}{{ '-'.join(['a', 'b']) }}",
    "{{ 'a\nb' | indent(4, true) }}{{ 'a\tb'.expandtabs(4) }}{{ 'abc'.rfind('c') }}",
    "{{ 7 // 2 }}{{ 7 % 4 }}{{ 2 ** 10 }}{{ 3 * 'ab' }}{{ -7 / 2 }}{{ 2.5 | round(1) }}",
    "{% set d = {'a': 1, 'b': [1, 2]} %}{% for k, v in d.items() %}{{ k }}{{ v }}{% endfor %}"
    "{{ d }}{{ d.get('c', 5) }}{{ d | items | list }}{{ d | dictsort }}{{ 'a' in d }}",
    "{{ x is defined }}{{ x }}{{ x | default('d') }}{{ none }}{{ 1 == 1.0 and not 2 < 1 < 3 }}",
    "{{ range(3) | list }}{{ range(5) | sum }}{{ 'abc' | first }}{{ 'ab' | list }}",
    "{{ 2 ** 63 }}{{ 10 ** 18 }}{{ 1 ** 99 }}{{ -5 * 2 ** 60 }}{{ 1250 | round(-2) }}",
    "{{ messages | sort(attribute='role,content') | map(attribute='role') | list }}"
    "{{ ['b', 'A'] | sort(true) }}{{ 'bca' | sort }}{{ [[2, 'a'], [1, 'b']] | sort(attribute=0) }}",
    "{{ ('a b' | safe).split() }}{{ ('a,b' | safe).rsplit(',', 1) }}"
    "{{ ('a\n' | safe).splitlines() }}",
    "{{ {'a': 1}.keys().mapping }}{{ {'a': 1}.keys() - [] }}{{ ['a' | safe] }}{{ [x] }}",
    "{% block b %}B{{ self.b is defined }}{% endblock %}{{ self.b() }}",
    "{% for c in 'abc' %}{% if c == 'b' %}{% continue %}{% endif %}{{ c }}{{ loop.cycle(1, 2) }}"
    "{% endfor %}{% with a = (1, 2) %}{{ a }}{{ a[0] if a }}{% endwith %}",
]


@pytest.mark.parametrize("source", HARMLESS)
def test_what_does_no_harm_is_rendered_as_jinja_does_limits_or_not(source: str) -> None:
    plain = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    plain.filters["tojson"] = lambda value, **how: json.dumps(value, ensure_ascii=False, **how)
    messages = [{"role": "system", "content": "be kind"}, *USER]
    assert render(source, messages) == plain.from_string(source).render(messages=messages)


def test_the_variables_that_a_template_reads() -> None:
    source = "{% set a = b %}{% if c is defined %}{{ a.d }}{% endif %}{# e #}{% break_ %}"
    with pytest.raises(UsageError, match="does not compile"):
        variables_of(source)
    assert variables_of(source.removesuffix("{% break_ %}")) == {"b", "c"}
    late = "{% if b %}{% set tools = none %}{% endif %}{{ tools }}"
    assert variables_of(late) == {"b", "tools"}
    assert variables_of(late) is variables_of(late), "a server asks at each request: it is kept"
