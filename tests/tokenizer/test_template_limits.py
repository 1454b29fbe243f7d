"""Chat templates that come with a model and mean harm: each ends soon, small, and on one line."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys

import pytest

from octavo.errors import PromptTooLongError, UsageError
from octavo.tokenizer import TooManyTokensError, template_meter
from octavo.tokenizer.chat_template import ChatTemplate
from tests.tokenizer.fixture_specs import load_tokenizer
from tests.tokenizer.test_chat_template import USER, render

LARGE, MANY = "a value of more than 16 MiB", "more than 128 MiB of values"
MIB = "a value of more than 1 MiB"
LATE, DEEP = "takes longer than 0.05 seconds", "nested too deeply, or calls itself without end"
BITS = "a number of more than 64 bits"
BIG = "{% set x = 'a' * 8000000 %}"
FOR_EVER = "{% for i in range(100000) %}{% for j in range(100000) %}"


def doubled(value: str, start: str = "'a'") -> str:
    """A template that sets ns.s to `value` again and again."""
    first = "{% set ns = namespace(s=" + start + ") %}{% for i in range(60) %}"
    return first + "{% set ns.s = " + value + " %}{% endfor %}{{ ns.s }}"


GROWING = {
    "times": ("{{ 'a' * 2000000000 }}", LARGE),
    "times the other way": ("{{ 2000000000 * [1] }}", LARGE),
    "a power": ("{{ (10**10)**(10**8) }}", BITS),
    "numbers squared": (doubled("ns.s * ns.s", "10"), BITS),
    "a number read": ("{{ '36893488147419103232' | int }}", BITS),
    "digits": ("{{ ('f' * 9000000) | int(base=16) }}", BITS),
    "~": (doubled("ns.s ~ ns.s"), LARGE),
    "many ~": (BIG + "{{ x" + "~x" * 1000 + " }}", LARGE),
    "+": (doubled("ns.s + ns.s"), LARGE),
    "%": (doubled("'%s%s' % (ns.s, ns.s)"), LARGE),
    "a set block": (doubled("x").replace("%}{% set ns", "%}{% set x %}{{ ns.s }}{{ ns.s }}"
                                         "{% endset %}{% set ns"), LARGE),
    "a set many times": ("{{ [{'a' * 1000000: 1}.keys() - []] * 70000 }}", LARGE),
    "a long name": ("{% macro " + "f" * 30000 + "() %}{% endmacro %}{{ [" + "f" * 30000 + "]"
                    " * 100000 }}", LARGE),
    "methods of what is safe": ("{{ [(('a' * 1000000) | safe).partition] * 70000 }}", LARGE),
    "a deep tuple hashed": ("{% set ns = namespace(t=()) %}" + FOR_EVER + "{% set ns.t = (ns.t,) %}"
                            "{% endfor %}{% endfor %}{{ {ns.t: 1} }}", "more than 200 deep"),
    "a width of %": ("{{ '%1000000000d' % 1 }}", LARGE),
    "a precision of %": ("{{ '%(a(b))1.1000000000f' % {'a(b)': 1} }}", LARGE),
    "a width of % apart": ("{{ '%*d' % (1000000000, 1) }}", LARGE),
    "a width of the filter": ("{{ '%1000000000d' | format(1) }}", LARGE),
    "a value named often": ("{{ ('%(a)s' * 100000) % {'a': 'x' * 100000} }}", LARGE),
    "a width of format": ("{{ '{:>1000000000}'.format(1) }}", LARGE),
    "a width of format apart": ("{{ '{:{}}'.format(1, 1000000000) }}", LARGE),
    "a width of format_map": ("{{ '{a:>1000000000}'.format_map({'a': 1}) }}", LARGE),
    "a width of a method got by name": ("{{ ('{:1000000000}' | attr('format'))(1) }}", LARGE),
    "format of what is safe": ("{{ ('{:>1000000000}' | safe).format(1) }}", LARGE),
    "a field named often": ("{{ ('{0}' * 1000000).format('x' * 100000) }}", MANY),
    "a path in format": (
        "{% set n = namespace() %}{% set n.a = n %}{{ ('{0' ~ '.a' * 7000000 ~ '}').format(n) }}",
        MANY,
    ),
    "ljust": ("{{ 'a'.ljust(1000000000) }}", LARGE),
    "zfill of what is safe": ("{{ ('a' | safe).zfill(1000000000) }}", LARGE),
    "expandtabs": ("{{ ('\t' * 1000000).expandtabs(tabsize=1000000) }}", LARGE),
    "replace": ("{{ ('a' * 1000000).replace('', 'b' * 1000000) }}", LARGE),
    "replace, a filter": ("{{ ('a' * 1000000) | replace('a', 'b' * 1000000) }}", LARGE),
    "join": ("{{ ('a' * 1000000).join('b' * 1000000) }}", LARGE),
    "join, a filter": ("{{ range(100000) | join('b' * 1000000) }}", LARGE),
    "join of attributes": (BIG + "{{ ([namespace(x=x)] * 1000) | join(attribute='x') }}", LARGE),
    "a default": (BIG + "{{ range(100000) | map(attribute='z', default=x) | list }}", LARGE),
    "center": ("{{ ['a'] | map('center', 1000000000) | list }}", LARGE),
    "indent": ("{{ ('a\n' * 1000000) | indent('x' * 1000000) }}", LARGE),
    "round": ("{{ 1 | round(1000000000, 'floor') }}", LARGE),
    "round the other way": ("{{ 1 | round(-1000000000) }}", LARGE),
    "sort by attributes": (BIG + "{{ ([namespace(x=x)] * 1000) | sort(attribute='x') }}", LARGE),
    "sort of attributes": (BIG + "{{ ([namespace(x=x)] * 1000) | map(attribute='x') | sort }}",
                           LARGE),
    "sum": ("{{ [[1]] | sum(start=[]) }}", "start must be a number"),
    "tojson's indent": ("{{ [[1]] | tojson(indent=1000000000) }}", LARGE),
    "tojson's separators": ("{{ [1] | tojson(separators=('x' * 1000000, ':')) }}", LARGE),
    "letters apart": ("{{ ('字' * 5000000) | list }}", LARGE),
    "slices kept": (BIG + "".join("{% set a" + str(i) + " = x[1:] %}" for i in range(100)), MANY),
    "parts kept": (BIG + "".join("{% set a" + str(i) + " = x.split('b') %}" for i in range(100)),
                   MANY),
    "rfind": (BIG + "{{ x.rfind('b' ~ x[:4000000]) }}", LARGE),
    "strip": (BIG + "{{ x.strip('b' * 4000000 ~ 'a') }}", LARGE),
    "striptags": ("{{ ('a' | safe).striptags() }}", "'striptags' of 'Markup'"),
    "bytes of a number": ("{{ (5).to_bytes(1000000000, 'big') }}", "'to_bytes' of 'int'"),
    "bytes of a text": ("{{ 'a'.encode() }}", "'encode' of 'str'"),
    "translate": ("{{ 'a'.translate({97: 'b'}) }}", "'translate' of 'str'"),
    "a format of the clock": ("{{ strftime_now('%Y' * 1000) }}", "a format of 2,000 characters"),
    "a complaint": ("{{ raise_exception('x' * 9000000) }}", "x{300}…$"),
    "lipsum": ("{{ lipsum(n=100000) }}", "'lipsum' is undefined"),
    "groupby": ("{{ [1] | groupby('a') }}", "No filter named 'groupby'"),
    "wordwrap": ("{{ 'a' | wordwrap(1) }}", "No filter named 'wordwrap'"),
    "a macro that calls itself": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", DEEP),
    "a block in itself": ("{% block a %}{{ self.a() }}{% endblock %}", DEEP),
    "filters of filters": (doubled("ns.s | map('string')", "[1]").replace("60", "5000")
                           .replace("{{ ns.s }}", "{{ ns.s | list }}"), DEEP),
}  # fmt: skip
# Small lists in each other, every one of them weighed wherever it stands.
NESTED = {
    "a list of lists": (doubled("[ns.s, ns.s]"), MIB),
    "a dict of views": (doubled("{1: ns.s.items(), 2: ns.s.items()}", "{}"), MIB),
    "a dict called": (doubled("dict(a=ns.s, b=ns.s)"), MIB),
    "a dict of what views lead to": (
        doubled("{1: ns.s.keys().mapping, 2: ns.s.keys().mapping}", "{}"), MIB),
    "a cycler": (doubled("cycler(ns.s, ns.s).items"), MIB),
    "varargs": ("{% macro f(n) %}{{ f(n - 1, varargs, varargs) if n else varargs }}{% endmacro %}"
                "{{ f(60) }}", MIB),
    "lists compared": (doubled("[ns.s, ns.s]").replace("{{ ns.s }}", "{{ ns.s == [ns.s] }}"),
                       MIB),
}  # fmt: skip
ENDLESS = {
    "loops": FOR_EVER + "{% endfor %}{% endfor %}",
    "loops in a macro": "{% set x %}" + FOR_EVER + "x{% endfor %}{% endfor %}{% endset %}",
    "a loop that takes nothing": "{% set x = 'a' * 1000000 %}"
                                 + "{% for c in x if false %}{% endfor %}" * 1000,
    "a loop in a loop of itself": "{% for x in range(50) recursive %}"
                                  "{{ loop(range(50)) if loop.depth < 20 }}{% endfor %}",
    "calls": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
             "{{ f(60) }}",
    "searches": BIG + FOR_EVER + "{{ 'b' in x }}{% endfor %}{% endfor %}",
    "searches by a filter": BIG + "{{ range(100000) | map('string') | select('in', x) | list }}",
    "a long path": "{{ range(100000) | map(attribute='a.' * 1000000, default={}) | list }}",
}  # fmt: skip
NOT_COMPILED = {
    "brackets": "{{ " + "[" * 150 + "]" * 150 + " }}",
    "parentheses": "{{ " + "(" * 10000 + ")" * 10000 + " }}",
    "loops": "{% for x in y %}" * 25 + "{% endfor %}" * 25,
    "elif": "{% if a %}" + "{% elif b %}" * 4000 + "{% endif %}",
    "a long sum": "{{ " + "+".join("a" * 20000) + " }}",
    "a long number": "{{ " + "9" * 50000 + " }}",
    "a keyword twice": "{{ dict(a=1, a=2) }}",
    "a block twice": "{% block a %}{% endblock %}{% block a %}{% endblock %}",
}


def complaint(source: str) -> str:
    with pytest.raises(UsageError) as caught:
        render(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("source", "why"), GROWING.values(), ids=GROWING)
def test_nothing_grows_without_a_bound_or_calls_itself_without_end(
    source: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template_meter, "SECONDS", 600)
    found = complaint(source)
    assert re.match(f"the chat template (failed|does not compile): .*{why}", found), found


@pytest.mark.parametrize(("source", "why"), NESTED.values(), ids=NESTED)
def test_what_is_nested_is_weighed_at_every_place(
    source: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to a sixteenth of the limit: that is 20,000 lists already."""
    monkeypatch.setattr(template_meter, "SECONDS", 600)
    monkeypatch.setattr(template_meter, "LARGEST", 1 << 20)
    found = complaint(source)
    assert re.match(f"the chat template failed: .*{why}", found), found


@pytest.mark.parametrize("source", ENDLESS.values(), ids=ENDLESS)
def test_nothing_runs_for_ever(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_meter, "SECONDS", 0.05)
    assert LATE in complaint(source)


def test_time_is_that_of_the_rendering_and_not_of_a_busy_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hours = itertools.count(step=3600)
    monkeypatch.setattr("octavo.tokenizer.template_meter.time.monotonic", lambda: next(hours))
    assert render("{% for i in range(9) %}{{ i }}{% endfor %}") == "012345678"


@pytest.mark.parametrize("source", NOT_COMPILED.values(), ids=NOT_COMPILED)
def test_what_does_not_compile_is_one_line(source: str) -> None:
    assert complaint(source).startswith("the chat template does not compile: ")


def test_a_source_has_a_length() -> None:
    assert render("a" * 65536) == "a" * 65536
    assert complaint("a" * 65537) == "the chat template has 65,537 characters: at most 65,536"


def test_what_is_printed_is_counted_piece_by_piece() -> None:
    assert LARGE in complaint(BIG + "{{ x }}{{ x }}{{ x }}")


def test_one_who_knows_what_is_too_long_ends_a_rendering() -> None:
    seen = []

    def check(text: str) -> None:
        seen.append(len(text))
        if len(text) > 100_000:
            raise PromptTooLongError("too long")

    source = "{% for i in range(100000) %}" + "a" * 1000 + "{% endfor %}"
    with pytest.raises(PromptTooLongError, match=r"^too long$"):
        ChatTemplate(source, "", "", check=check).render(USER)
    assert seen == [33_000, 67_000, 135_000]


def test_a_chat_is_rendered_no_further_than_it_could_fit() -> None:
    """The template would print a gigabyte."""
    tokenizer = load_tokenizer("tiny_bpe")
    source = "{% for i in range(100000) %}" + "ab" * 5000 + "{% endfor %}"
    with pytest.raises(TooManyTokensError) as caught:
        tokenizer.encode_chat(USER, chat_template=source, limit=1000)
    assert caught.value.count == 40_000 // 16


def test_a_message_that_is_too_long_is_not_the_templates_fault() -> None:
    tokenizer = load_tokenizer("tiny_bpe")
    long = [{"role": "user", "content": "ab" * 10_000_000}]
    source = "{{ messages[0].content ~ 'x' }}"
    with pytest.raises(TooManyTokensError) as caught:
        tokenizer.encode_chat(long, chat_template=source, limit=1000)
    assert caught.value.count == 20_000_000 // 16
    short = [{"role": "user", "content": "a" * 40_000}]
    with pytest.raises(UsageError, match="'x' is undefined"):
        tokenizer.encode_chat(short, chat_template="{{ x.y }}", limit=50_000)


@pytest.mark.skipif(sys.platform == "darwin", reason="has no RLIMIT_AS")
def test_the_worst_of_them_fit_into_a_small_memory() -> None:
    """They run in a child with 1 GiB of addresses: what is refused was not made before."""
    names = ("times", "many ~", "a list of lists", "a width of %", "slices kept", "join, a filter")
    sources = [(GROWING | NESTED)[name][0] for name in names]
    sources += ["{{ ('ab ' * 5000000).split() }}", "{{ (('ab ' * 5000000) | safe).split() }}"]
    script = f"""
import resource
from octavo.errors import UsageError
from octavo.tokenizer.chat_template import ChatTemplate
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
for source in {sources!r}:
    try:
        ChatTemplate(source, "", "").render([])
    except UsageError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stderr == ""
    limits = [LARGE, LARGE, LARGE, LARGE, MANY, *[LARGE] * 3]
    assert done.stdout.splitlines() == [f"the chat template failed: it makes {w}" for w in limits]
