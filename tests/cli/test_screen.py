"""No text of a file or a model reaches a terminal raw, whichever verb shows it."""

from __future__ import annotations

import ast
import logging
from pathlib import Path

import pytest

import octavo.cli
from octavo.cli.screen import LogLines, Screen, one_line, printable
from tests.batch_job.lines import plain
from tests.batch_job.shouting_llm import ShoutingLLM
from tests.cli.fake_llm import FakeLLM
from tests.cli.process import run_python
from tests.cli.result import BatchFiles, Octavo, Result
from tests.cli.terminal import sent_to_terminal
from tests.cli.tiny_model import TINY, write_tiny_model

# Clears the screen, sets bold, overwrites, turns round.
HOSTILE = "a\x1b[2J\x9b1m\r\u202eb\x7f\n\tc"
SHOWN = "a\\x1b[2J\\x9b1m\\r\\u202eb\\x7f\n\tc"
ON_ONE_LINE = "a\\x1b[2J\\x9b1m\\r\\u202eb\\x7f\\n\\tc"


def test_control_characters_are_shown_as_python_spells_them() -> None:
    assert printable(HOSTILE) == SHOWN
    assert one_line(HOSTILE) == ON_ONE_LINE
    everything = "".join(map(chr, range(0x110000)))
    hidden = {c for c in everything if printable(c) != c}
    control = {chr(c) for c in (*range(0x20), *range(0x7F, 0xA0))} - {"\n", "\t"}
    turning = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    surrogates = set(map(chr, range(0xD800, 0xE000)))
    assert hidden == control | turning | surrogates | {"\u2028", "\u2029"}
    assert printable("\0\udc80") == "\\x00\\udc80"


def test_nothing_but_the_screen_writes() -> None:
    """Beside rich's bars, which show library names and counts."""
    writes = {"print", "click.echo", "sys.stdout.write", "sys.stderr.write", "stream.write"}
    found = []
    for path in Path(octavo.cli.__file__).parent.glob("*.py"):
        calls = (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call))
        called = (ast.unparse(call.func) for call in calls)
        found += [(path.name, name) for name in called if name in writes]
    assert found == [("screen.py", "stream.write")]


def test_an_answer_is_shown_so_as_it_is_made_and_json_has_it_as_it_is(octavo: Octavo) -> None:
    llm = FakeLLM(["a\x1b", "[2J", HOSTILE[5:]])
    command = ("run", llm, "hi", "--chat-template", __file__)
    assert octavo(*command).out == f"{SHOWN}\n"
    found = octavo(*command, "--json")
    assert found.json["outputs"][0]["text"] == HOSTILE
    assert found.out[:-1].isprintable()
    result = octavo("chat", FakeLLM([HOSTILE]), stdin="one\n/\x1b]0;owned\x07\n")
    assert result.out == f"{SHOWN}\n"
    assert "octavo: unknown command '/\\x1b]0;owned\\x07'; known: /reset, " in result.err


def test_steps_and_stats_show_text_so(octavo: Octavo) -> None:
    result = octavo("run", TINY, HOSTILE, "--raw", "--trace-steps", "--max-tokens", "1")
    quoted = '"a\\u001b[2J\\x9b1m\\r\\u202eb\\x7f\\n\\tc'  # JSON's spelling, and what it leaves
    assert quoted in result.out
    llm = FakeLLM(["x"], diverged_text=HOSTILE)
    result = octavo("run", llm, "hi", "--chat-template", __file__, "--stats")
    assert f'diverged at token 2, {quoted}": ' in result.err


def test_a_name_from_a_file_stays_on_its_line(octavo: Octavo, tmp_path: Path) -> None:
    template = "{{ messages }}\x1b[2J\n{# two #}"
    name = f"Tiny{HOSTILE}\nlayers  99"
    model = write_tiny_model(tmp_path / "m.gguf", name=name, template=template)
    lines = octavo("inspect", str(model), "--template").out.splitlines()
    assert lines[1] == f"name          Tiny{ON_ONE_LINE}\\nlayers  99"
    assert lines[4].startswith("layers        2, ")
    assert lines[-2:] == ["{{ messages }}\\x1b[2J", "{# two #}"]


def test_an_error_that_quotes_a_file_stays_one_line(octavo: Octavo, tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "m.gguf")
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"llama", b"l\x1b\n[m"))  # as long, so that lengths still hold
    result = octavo("run", str(path), "hi")
    assert (result.code, result.err.count("\n"), "\x1b" in result.err) == (1, 1, False)
    assert "l\\x1b\\n[m" in result.err


def test_a_line_of_a_batch_that_is_refused_is_named_so(batch: BatchFiles) -> None:
    batch.write(plain("a", "one"), plain("b", "two", **{"x\x1b[2J\n": 1}))
    result = batch.run(model=ShoutingLLM())
    assert "\x1b" not in result.err
    assert "x\\x1b[2J\\n" in result.err


def test_a_log_is_one_line_and_a_traceback_keeps_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    record = logging.makeLogRecord({"msg": "%s is damaged", "args": (HOSTILE,)})
    LogLines().emit(record)
    assert capfd.readouterr().err == f"{ON_ONE_LINE} is damaged\n"
    record.exc_info = (ValueError, ValueError("\x1b"), None)
    LogLines().emit(record)
    assert capfd.readouterr().err == f"{SHOWN} is damaged\nValueError: \\x1b\n"
    program = (
        "import logging, octavo.cli.app as app\n"
        "app.run = lambda arguments: logging.getLogger('octavo.x').warning('a\\x1b\\nb')\n"
        "app.main([])"
    )
    assert run_python(program) == Result(0, "", "a\\x1b\\nb\n")


LINE = "[1,234 prompt tokens, 1,000 cached, 3,018 tok/s · 128 new, 336 tok/s · KV 45 MiB]"


@pytest.mark.parametrize(
    ("columns", "lines"),
    [(100, [LINE]),
     (0, [LINE]),  # a terminal that does not know its width
     (80, [LINE[:-8], LINE[-7:]]),
     (40, [LINE[:35], LINE[36:73], LINE[-7:]])],
)  # fmt: skip
def test_figures_are_dim_on_a_terminal_and_wrapped_at_words(
    monkeypatch: pytest.MonkeyPatch, columns: int, lines: list[str]
) -> None:
    def sent(quiet: bool = False) -> str:
        return sent_to_terminal(columns, lambda: Screen(False, quiet).figures(LINE))

    shown = "\n".join(lines)
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value, expected in [
        ("TERM", "dumb", f"{shown}\n"),
        ("TERM", "xterm", f"\x1b[2m{shown}\x1b[0m\n"),
        ("NO_COLOR", "1", f"{shown}\n"),
    ]:
        monkeypatch.setenv(name, value)
        assert sent() == expected
        assert sent(quiet=True) == ""


def test_figures_in_a_pipe_are_one_plain_line(capfd: pytest.CaptureFixture[str]) -> None:
    Screen(as_json=False).figures(LINE + HOSTILE)
    assert capfd.readouterr().err == f"{LINE}{SHOWN}\n"


def test_json_has_no_control_character_at_all(capfd: pytest.CaptureFixture[str]) -> None:
    Screen(as_json=True).result({"text": HOSTILE})
    expected = '{"text": "a\\u001b[2J\\u009b1m\\r\\u202eb\\u007f\\n\\tc"}\n'
    assert capfd.readouterr().out == expected
    Screen(as_json=False).result({"text": HOSTILE})
    assert capfd.readouterr().out == ""
