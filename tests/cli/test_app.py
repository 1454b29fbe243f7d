"""Exit codes, one line an error, and manners in a pipe: as a process and as a function."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from octavo import __version__
from octavo.cli.app import VERBS
from tests.cli.process import OCTAVO, end, environ, run, run_python, start
from tests.cli.result import Octavo, Result, refused
from tests.cli.tiny_model import TINY, write_tiny_model


@pytest.mark.parametrize(
    ("arguments", "result"),
    [(["--version"], Result(0, f"octavo {__version__}\n", "")),
     (["plan", "--users", "0"],
      refused("--users 0: expected a whole number from 1 to 1099511627776")),
     (["inspect", "no-such-file.gguf"],
      refused("no file and no library model 'no-such-file.gguf'; the library has smollm2, "
              "gemma3-270m: `octavo pull NAME` fetches one", code=1))],
)  # fmt: skip
def test_a_process_ends_with_0_when_done_1_when_it_failed_and_2_on_bad_usage(
    arguments: list[str], result: Result
) -> None:
    assert end(start(*arguments)) == result


def test_a_reader_that_leaves_ends_the_process_in_silence_and_a_full_disk_in_one_line() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    process = start("list", stdout=write_end)
    os.close(write_end)
    assert end(process) == Result(1, "", "")
    with open("/dev/full", "w") as full:
        result = end(start("list", stdout=full))
    assert result == refused("cannot read or write the output: No space left on device", code=1)


def test_a_terminal_that_is_not_utf_8_shows_what_it_can(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "tiny.gguf", template="ä{{ 'é' }}")
    told = {name: environ()[name] for name in ("PYTHONPATH", "PATH")}
    ascii_only = {**told, "PYTHONIOENCODING": "ascii"}
    result = end(start("inspect", str(model), "--template", env=ascii_only))
    assert (result.code, result.err) == (0, "")
    assert result.out.endswith("\n?{{ '?' }}\n")


def test_ctrl_c_at_the_prompt_of_a_chat_is_survived() -> None:
    process = start("chat", TINY, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write("/help\n")  # answered when the model is there and lines are read
    process.stdin.flush()
    assert process.stderr is not None
    seen = [process.stderr.readline() for _ in range(5)]
    process.send_signal(signal.SIGINT)  # at the prompt it drops the line ...
    result = end(process)  # ... and the end of input ends the chat
    assert "/reset" in seen[0]
    assert (result.code, result.out) == (0, "")
    assert "Traceback" not in result.err


@pytest.mark.parametrize("name", ["click", "octavo.serving.llm"])
def test_ctrl_c_in_the_imports_ends_the_process_without_a_word(name: str) -> None:
    program = (
        "import sys\n"
        "class Press:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {name!r}:\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Press())\n"
        f"sys.argv = ['octavo', 'run', {TINY!r}, 'hi']\n"
        "from octavo.cli import main\n"
        "main()\n"
    )
    assert run_python(program) == Result(130, "", "")


def test_no_arguments_is_help(octavo: Octavo) -> None:
    result = octavo()
    assert result.code == 0
    for verb in VERBS:
        assert f"\n  {verb} " in result.out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_json(octavo: Octavo, verb: str) -> None:
    more = {"bench": ["decode"], "cache": ["stats"]}.get(verb, [])
    result = octavo(verb, *more, "--help")
    assert (result.code, result.err) == (0, "")
    assert "--json" in result.out


def test_a_list_of_verbs_tells_each_whole(octavo: Octavo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for verb in ([], ["bench"], ["cache"]):
        _, commands, verbs = octavo(*verb, "--help").out.partition("Commands:\n")
        assert (commands, "..." in verbs) == ("Commands:\n", False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["fly"], ["fly", "; `octavo --help` lists what there is"]),
     (["run"], ["MODEL", "; `octavo run --help` lists what there is"]),
     (["bench"], ["; `octavo bench --help` lists what there is"]),
     (["run", "m", "hi", "--top-k", "many"], ["--top-k", "; `octavo run --help` lists"]),
     (["run", "m", "-5 degrees"], ["'-5'; ", "; if the prompt begins with it, put -- before the"]),
     (["run", "m", "- a list"], ["'- '; ", "; if the prompt begins with it, put -- before the"]),
     (["run", "m", "--what is it?"], ["; if the prompt begins with it, put -- before the"]),
     (["run", "m", "what", "is", "it?"], ["(is it?)", "several words needs quotes around it"]),
     (["run", "m", "--temprature", "1"], ["'--temperature'?); `octavo run --help` lists"]),
     (["run", "m", "hi", "--temperature", "-1"],
      ["octavo: --temperature -1.0: expected a number from 0 to 100"]),
     (["run", "m", "top_k=9", "--top-k=-2"],
      ["octavo: --top-k -2: expected a whole number from 0 to 2147483647"]),
     (["run", "m", "hi", "--raw", "--system", "s"],
      ["octavo: --raw takes the prompt as it is: leave out --system and --chat-template"])],
)  # fmt: skip
def test_bad_usage_is_one_line_that_says_what_to_do(
    octavo: Octavo, arguments: list[str], said: list[str]
) -> None:
    result = octavo(*arguments)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert result.err.startswith("octavo: ")
    assert all(words in result.err for words in said)


def test_a_prompt_may_begin_with_a_dash_behind_two(octavo: Octavo) -> None:
    found = octavo("run", TINY, "--raw", "--max-tokens", "1", "--json", "--", "-5").json
    assert len(found["prompt_token_ids"]) == 2
    hint = octavo("run", TINY, "--wrong").err
    assert "--wrong" in hint
    assert "before the prompt" not in hint  # it looks like a flag and like nothing else


def test_with_json_an_error_is_an_object_too(octavo: Octavo) -> None:
    wrong = [(2, "list", "--wrong"), (2, "plan", "--users", "0"), (1, "inspect", "no-such.gguf")]
    for code, *arguments in wrong:
        result = octavo(*arguments, "--json")
        assert (result.code, result.json["exit_code"]) == (code, code)
        assert result.err == f"octavo: {result.json['error']}\n"


def test_closed_streams_are_done_without() -> None:
    for command in ("list >&-", f"chat {TINY} <&-"):
        assert run("sh", "-c", f"{OCTAVO} {command}") == Result(0, "", "")
    for command in ("list 2>&-", "list <&-"):
        result = run("sh", "-c", f"{OCTAVO} {command}")
        assert (result.code, result.out[:4], result.err) == (0, "NAME", "")


# Leaves its closed streams alone, and ends with a line of its own.
VERSION = """
import os, sys
from octavo.cli.app import main
try:
    main(['--version'])
except SystemExit:
    {line}
"""


def test_no_file_takes_the_place_of_a_closed_stream() -> None:
    program = VERSION.format(line="print(os.open('/', os.O_RDONLY) > 2)")
    result = run("sh", "-c", f'"{sys.executable}" -c "{program}" <&- 2>&-')
    assert result.out == f"octavo {__version__}\nTrue\n"


def test_numpy_starts_no_threads_of_its_own() -> None:
    program = VERSION.format(line="import numpy; print(len(os.listdir('/proc/self/task')))")
    told = {name: value for name, value in environ().items() if name != "OPENBLAS_NUM_THREADS"}
    assert run_python(program, env=told) == Result(0, f"octavo {__version__}\n1\n", "")


def _no_library() -> ImportError:
    error = ImportError("IMPORTANT: PLEASE READ THIS FOR ADVICE")
    error.__cause__ = ImportError("libx.so: failed to map segment\nfrom shared object")
    return error


OUT_OF_MEMORY = (
    "out of memory: free some, or raise the limit (`ulimit -v`); `octavo plan` says what a model "
    "takes"
)


@pytest.mark.parametrize(
    ("error", "line"),
    [(MemoryError(), OUT_OF_MEMORY),
     (OSError(errno.ENOMEM, "Cannot allocate memory"), OUT_OF_MEMORY),
     (RuntimeError("can't start new thread"),
      "can't start new thread: raise the limits (`ulimit -u`, `ulimit -v`)"),
     (_no_library(),
      "a part of Octavo does not load (libx.so: failed to map segment from shared object): free "
      "memory or raise its limit (`ulimit -v`), else install Octavo again")],
)  # fmt: skip
def test_what_the_system_does_not_give_is_one_line_with_the_first_reason(
    octavo: Octavo, monkeypatch: pytest.MonkeyPatch, error: Exception, line: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("octavo.cli.plan.open_program", fail)
    plain, as_json = octavo("plan", "m"), octavo("plan", "m", "--json")
    assert plain == refused(line, code=1)
    assert (as_json.code, as_json.err, as_json.json["exit_code"]) == (1, plain.err, 1)


def test_a_budget_beyond_the_limit_of_the_process_is_refused_with_both_numbers() -> None:
    ask = f"{OCTAVO} run {TINY} hi --max-tokens 1 --kv-memory 960M"
    result = run("sh", "-c", f"ulimit -v {2**20}; exec {ask}")  # 1 GiB, of which Python has a part
    assert (result.code, result.out) == (1, "")
    assert re.fullmatch(
        r"octavo: kv_memory asks for 1,006,632,960 bytes, and beside [\d,]+ bytes of weights this "
        r"process may take [\d,]+: lower kv_memory, free memory, or raise its limit\n",
        result.err,
    )
