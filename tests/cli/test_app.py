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
from tests.cli.tiny_model import write_tiny_model

SOURCES = str(Path(__file__).parents[2] / "src")


def octavo_process(*arguments: str, **options: object) -> subprocess.Popen[str]:
    given = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "env": {**os.environ, "PYTHONPATH": SOURCES},
        **options,
    }
    return subprocess.Popen([sys.executable, "-m", "octavo", *arguments], text=True, **given)


def test_a_process_ends_with_0_when_done_1_when_it_failed_and_2_on_bad_usage():
    for arguments, code, line in [
        (["--version"], 0, ""),
        (
            ["inspect", "no-such-file.gguf"],
            1,
            "octavo: no file and no library model 'no-such-file.gguf'; the library has smollm2, "
            "gemma3-270m: `octavo pull NAME` fetches one\n",
        ),
        (
            ["plan", "--users", "0"],
            2,
            "octavo: --users 0: expected a whole number from 1 to 1099511627776\n",
        ),
    ]:
        process = octavo_process(*arguments)
        _, err = process.communicate()
        assert (process.returncode, err) == (code, line)


def test_a_reader_that_leaves_ends_the_process_without_a_word():
    read_end, write_end = os.pipe()
    os.close(read_end)
    process = octavo_process("list", stdout=write_end)
    os.close(write_end)
    _, err = process.communicate()
    assert (process.returncode, err) == (1, "")


def test_a_terminal_that_is_not_utf_8_shows_what_it_can(tmp_path):
    model = write_tiny_model(tmp_path / "tiny.gguf", template="ä{{ 'é' }}")
    ascii_only = {"PYTHONPATH": SOURCES, "PYTHONIOENCODING": "ascii", "PATH": os.environ["PATH"]}
    process = octavo_process("inspect", str(model), "--template", env=ascii_only)
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert out.endswith("\n?{{ '?' }}\n")


def test_ctrl_c_at_the_prompt_of_a_chat_is_survived(tiny):
    process = octavo_process("chat", tiny, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write("/help\n")  # answered when the model is there and lines are read
    process.stdin.flush()
    assert process.stderr is not None
    seen = [process.stderr.readline() for _ in range(5)]
    process.send_signal(signal.SIGINT)  # at the prompt it drops the line ...
    out, err = process.communicate()  # ... and the end of input ends the chat
    assert "/reset" in seen[0]
    assert (process.returncode, out) == (0, "")
    assert "Traceback" not in err


@pytest.mark.parametrize("name", ["typer", "octavo.serving.llm"])
def test_ctrl_c_in_the_imports_ends_the_process_without_a_word(tiny, name):
    script = (
        "import sys\n"
        "class Press:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {name!r}:\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Press())\n"
        f"sys.argv = ['octavo', 'run', {tiny!r}, 'hi']\n"
        "from octavo.cli import main\n"
        "main()\n"
    )
    env = {**os.environ, "PYTHONPATH": SOURCES}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_no_arguments_is_help(octavo):
    result = octavo()
    assert result.code == 0
    for verb in VERBS:
        assert f"\n  {verb} " in result.out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_json(octavo, verb):
    names = [verb] if verb != "bench" else [verb, "decode"]
    result = octavo(*names, "--help")
    assert result.code == 0
    assert "--json" in result.out
    assert result.err == ""


@pytest.mark.parametrize("verb", [(), ("bench",)])
def test_a_list_of_verbs_says_of_each_in_full_what_it_does(octavo, monkeypatch, verb):
    monkeypatch.setenv("COLUMNS", "80")
    text = octavo(*verb, "--help").out
    assert "Commands:\n" in text
    assert "..." not in text.partition("Commands:")[2]


def test_version(octavo):
    assert octavo("--version").out == f"octavo {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fly"], ["fly", "; `octavo --help` lists what there is"]),
        (["run"], ["MODEL", "; `octavo run --help` lists what there is"]),
        (["bench"], ["; `octavo bench --help` lists what there is"]),
        (["run", "m", "hi", "--top-k", "many"], ["--top-k", "; `octavo run --help` lists"]),
        (["run", "m", "-5 degrees"], ["-5; ", "; if the prompt begins with it, put -- before the"]),
        (["run", "m", "- a list"], ["-; ", "; if the prompt begins with it, put -- before the"]),
        (["run", "m", "--what is it?"], ["; if the prompt begins with it, put -- before the"]),
        (["run", "m", "what", "is", "it?"], ["(is it?)", "several words needs quotes around it"]),
        (["run", "m", "--temprature", "1"], ["--temperature); `octavo run --help` lists what"]),
        (
            ["run", "m", "hi", "--temperature", "-1"],
            ["octavo: --temperature -1.0: expected a number from 0 to 100"],
        ),
        (
            ["run", "m", "top_k=9", "--top-k=-2"],
            ["octavo: --top-k -2: expected a whole number from 0 to 2147483647"],
        ),
        (
            ["run", "m", "hi", "--raw", "--system", "s"],
            ["octavo: --raw takes the prompt as it is: leave out --system and --chat-template"],
        ),
    ],
)
def test_bad_usage_is_one_line_that_says_what_to_do(octavo, arguments, said):
    result = octavo(*arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("octavo: ")
    assert result.err.count("\n") == 1
    assert all(words in result.err for words in said)


def test_a_prompt_may_begin_with_a_dash_behind_two(octavo, tiny):
    found = octavo("run", tiny, "--raw", "--max-tokens", "1", "--json", "--", "-5").json
    assert len(found["prompt_token_ids"]) == 2
    hint = octavo("run", tiny, "--wrong").err
    assert "--wrong" in hint
    assert "before the prompt" not in hint  # it looks like a flag and like nothing else


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["list", "--wrong", "--json"], 2), (["plan", "--users", "0", "--json"], 2),
     (["inspect", "no-such-file.gguf", "--json"], 1)],
)  # fmt: skip
def test_with_json_an_error_is_an_object_too(octavo, arguments, code):
    result = octavo(*arguments)
    assert (result.code, result.json["exit_code"]) == (code, code)
    assert result.err == f"octavo: {result.json['error']}\n"


def test_a_full_disk_is_one_line():
    with open("/dev/full", "w") as full:
        process = octavo_process("list", stdout=full)
        _, err = process.communicate()
    assert (process.returncode, err) == (
        1,
        "octavo: cannot read or write the output: No space left on device\n",
    )


@pytest.mark.parametrize(("closed", "said"), [(">&-", ""), ("2>&-", "NAME"), ("<&-", "NAME")])
def test_closed_streams_are_done_without(closed, said):
    command = f'"{sys.executable}" -m octavo list {closed}'
    env = {**os.environ, "PYTHONPATH": SOURCES}
    done = subprocess.run(["sh", "-c", command], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(said)


def test_no_file_takes_the_place_of_a_closed_stream():
    script = (
        "import os\n"
        "from octavo.cli.app import main\n"
        "try:\n"
        "    main(['--version'])\n"
        "except SystemExit:\n"
        "    print(os.open('/', os.O_RDONLY) > 2)\n"
    )
    command = ["sh", "-c", f'"{sys.executable}" -c "{script}" <&- 2>&-']
    env = {**os.environ, "PYTHONPATH": SOURCES}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.stdout == f"octavo {__version__}\nTrue\n"


def test_a_chat_without_standard_input_ends(tiny):
    command = f'"{sys.executable}" -m octavo chat "{tiny}" <&-'
    env = {**os.environ, "PYTHONPATH": SOURCES}
    done = subprocess.run(["sh", "-c", command], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory")])
def test_memory_that_runs_out_is_one_line(octavo, monkeypatch, error):
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr("octavo.cli.plan.open_program", full)
    result = octavo("plan", "m", "--json")
    assert (result.code, result.json["exit_code"]) == (1, 1)
    assert result.err == (
        "octavo: out of memory: free some, or raise the limit (`ulimit -v`); `octavo plan` says "
        "what a model takes\n"
    )


def test_a_thread_that_cannot_be_started_is_one_line(octavo, monkeypatch):
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("octavo.cli.plan.open_program", refuse)
    result = octavo("plan", "m")
    assert (result.code, result.out) == (1, "")
    line = "octavo: can't start new thread: raise the limits (`ulimit -u`, `ulimit -v`)\n"
    assert result.err == line


def test_a_library_that_does_not_load_is_one_line_with_the_first_reason(octavo, monkeypatch):
    def fail(*_: object) -> None:
        try:
            raise ImportError("libx.so: failed to map segment\nfrom shared object")
        except ImportError as error:
            raise ImportError("IMPORTANT: PLEASE READ THIS FOR ADVICE") from error

    monkeypatch.setattr("octavo.cli.plan.open_program", fail)
    result = octavo("plan", "m")
    assert (result.code, result.out) == (1, "")
    assert result.err == (
        "octavo: a part of Octavo does not load (libx.so: failed to map segment from shared "
        "object): free memory or raise its limit (`ulimit -v`), else install Octavo again\n"
    )


def test_numpy_starts_no_threads_of_its_own():
    script = (
        "import os, sys\n"
        "from octavo.cli.app import main\n"
        "try:\n"
        "    main(['--version'])\n"
        "except SystemExit:\n"
        "    import numpy\n"
        "    print(len(os.listdir('/proc/self/task')))\n"
    )
    env = {**os.environ, "PYTHONPATH": SOURCES}
    env.pop("OPENBLAS_NUM_THREADS", None)
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True)
    assert (done.stderr, done.stdout) == ("", f"octavo {__version__}\n1\n")


def test_a_budget_beyond_the_limit_of_the_process_is_refused_with_both_numbers(tiny):
    ask = f'"{sys.executable}" -m octavo run "{tiny}" hi --max-tokens 1 --kv-memory'
    env = {**os.environ, "PYTHONPATH": SOURCES}
    limited = f"ulimit -v {2**20}; exec {ask} 900M"  # 1 GiB, of which Python has a part
    done = subprocess.run(["sh", "-c", limited], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        r"octavo: kv_memory asks for 943,718,400 bytes, and beside [\d,]+ bytes of weights this "
        r"process may take [\d,]+: lower kv_memory, free memory, or raise its limit\n",
        done.stderr,
    )
