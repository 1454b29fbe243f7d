"""llama.cpp's programs, played by scripts: what they are asked, and what is read of what they
print."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.peer.llama_cpp import LlamaCpp, batched_speed, programs_in
from benchmarks.peer.one import NotSupportedError, PeerError, Settings
from benchmarks.peer.workloads import Workload
from tests.benchmarks.peer.fakes import BATCH, CHAT, DECODE, MODEL, PROMPT, SETTINGS, SHARED, script

_SAYS = """
import json, sys
json.dump(sys.argv[1:], open({asked!r}, "w"))
print({printed!r})
"""
_BENCH = json.dumps([{"build_number": 7, "build_commit": "abc", "samples_ts": [300.0, 321.5]}])
_TABLE = """
main: n_kv_max = 64, n_threads = 2

|    PP |     TG |    B |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |      T s |    S t/s |
|-------|--------|------|--------|----------|----------|----------|----------|----------|----------|
|     8 |      4 |    3 |     36 |    0.068 |  3740.45 |    0.047 |   255.50 |    0.115 |  2496.61 |

"""
_SERVER = """
import json, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
flags = sys.argv[1:]
asked = []

class Handler(BaseHTTPRequestHandler):
    loads = 2
    def do_GET(self):
        Handler.loads -= 1
        self.reply(200 if Handler.loads < 0 else 503, {})
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked.append(body)
        json.dump([flags, asked], open(ASKED, "w"))
        self.reply(200, {"content": "x", "tokens_predicted": body["n_predict"] - SHORT})
    def reply(self, status, data):
        data = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def log_message(self, *args):
        pass

port = int(flags[flags.index("--port") + 1])
ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def peer(folder: Path, name: str = "llama.cpp", settings: Settings = SETTINGS) -> LlamaCpp:
    return LlamaCpp(name, programs_in(folder), MODEL, settings)


def says(folder: Path, program: str, printed: str) -> Path:
    """Where the script leaves what it was asked."""
    asked = folder / "asked.json"
    script(folder / program, _SAYS.format(asked=str(asked), printed=printed))
    return asked


@pytest.mark.parametrize(
    ("name", "work", "flags"),
    [
        ("llama.cpp", PROMPT, "-p 32 -n 0 -r 2 -o json -fa 1"),
        ("llama.cpp", DECODE, "-p 0 -n 4 -d 8 -r 2 -o json -fa 1"),
        ("ik_llama.cpp", PROMPT, "-p 32 -n 0 -r 2 -o json -fa 1 -rtr 1"),
        ("ik_llama.cpp", DECODE, "-p 0 -n 0 -gp 8,4 -r 2 -o json -fa 1 -rtr 1"),
    ],
)
def test_one_stream_is_asked_of_llama_bench(
    tmp_path: Path, name: str, work: Workload, flags: str
) -> None:
    asked = says(tmp_path, "llama-bench", _BENCH)
    found = peer(tmp_path, name)
    assert found.run(work, seed=0) == 321.5
    assert json.loads(asked.read_text()) == ["-m", str(MODEL.path), "-t", "2", *flags.split()]
    assert found.version == "7 (abc)"


@pytest.mark.parametrize(("name", "more"), [("llama.cpp", ""), ("ik_llama.cpp", " -rtr")])
def test_streams_are_asked_of_llama_batched_bench(tmp_path: Path, name: str, more: str) -> None:
    asked = says(tmp_path, "llama-batched-bench", _TABLE)
    assert peer(tmp_path, name).run(BATCH, seed=0) == 255.5
    flags = f"-m /models/some.gguf -t 2 -c 36 -b 2048 -ub 512 -npp 8 -ntg 4 -npl 3 -fa on{more}"
    assert json.loads(asked.read_text()) == flags.split()


@pytest.mark.parametrize(("work", "slots"), [(CHAT, 3), (SHARED, 1)])
def test_requests_go_to_llama_server(tmp_path: Path, work: Workload, slots: int) -> None:
    asked = tmp_path / "asked.json"
    script(tmp_path / "llama-server", f"ASKED, SHORT = {str(asked)!r}, 0\n{_SERVER}")
    assert peer(tmp_path).run(work, seed=3) > 0
    flags, bodies = json.loads(asked.read_text())
    assert flags[flags.index("-np") + 1] == str(slots)
    assert flags[flags.index("-c") + 1] == str(slots * 256)
    assert flags[flags.index("--host") + 1] == "127.0.0.1"
    wanted = sorted(zip(work.prompts(100, seed=3), [r.new for r in work.requests], strict=True))
    assert sorted((each["prompt"], each["n_predict"]) for each in bodies) == wanted
    assert all(each["ignore_eos"] and each["cache_prompt"] for each in bodies)


def test_an_answer_of_another_length_is_no_measure(tmp_path: Path) -> None:
    script(tmp_path / "llama-server", f"ASKED, SHORT = {str(tmp_path / 'x')!r}, 1\n{_SERVER}")
    with pytest.raises(PeerError, match="llama-server: expected 4 new tokens, found 3"):
        peer(tmp_path).run(SHARED, seed=0)


def test_a_refusal_is_told(tmp_path: Path) -> None:
    code = _SERVER.replace(
        'self.reply(200, {"content"', 'self.reply(500, {"error": "too long", "content"'
    )
    script(tmp_path / "llama-server", f"ASKED, SHORT = {str(tmp_path / 'x')!r}, 0\n{code}")
    with pytest.raises(PeerError, match=r'^llama-server answered 500: {"error": "too long"'):
        peer(tmp_path).run(SHARED, seed=0)


def test_a_server_that_ends_says_why(tmp_path: Path) -> None:
    script(tmp_path / "llama-server", "print('no such model')\nraise SystemExit(1)")
    with pytest.raises(PeerError, match="llama-server ended: no such model"):
        peer(tmp_path).run(CHAT, seed=0)


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    says(tmp_path, "llama-bench", _BENCH)
    with pytest.raises(NotSupportedError, match="llama-server is not among its programs"):
        peer(tmp_path).run(CHAT, seed=0)


@pytest.mark.parametrize(
    ("work", "program"),
    [(PROMPT, "llama-bench"), (BATCH, "llama-batched-bench"), (CHAT, "llama-server")],
)
def test_a_program_that_cannot_be_run_is_told(tmp_path: Path, work: Workload, program: str) -> None:
    script(tmp_path / program, "").chmod(0o644)
    with pytest.raises(PeerError, match=f"^{program} cannot be run: Permission denied$"):
        peer(tmp_path).run(work, seed=0)


def test_what_fails_is_a_line(tmp_path: Path) -> None:
    script(
        tmp_path / "llama-bench",
        "import sys; print('a lot\\nerror: bad file', file=sys.stderr); sys.exit(3)",
    )
    with pytest.raises(PeerError, match=r"^llama-bench ended with 3: error: bad file$"):
        peer(tmp_path).run(PROMPT, seed=0)
    says(tmp_path, "llama-bench", "[]")
    with pytest.raises(PeerError, match="expected one result, found '\\[\\]"):
        peer(tmp_path).run(PROMPT, seed=0)
    script(tmp_path / "llama-bench", "import signal; signal.pause()")
    short = Settings(threads=2, context=64, streams=4, seconds=0.05)
    with pytest.raises(PeerError, match=r"llama-bench did not end in 0\.05 s"):
        peer(tmp_path, settings=short).run(PROMPT, seed=0)


def test_a_table_of_no_row_is_refused() -> None:
    with pytest.raises(PeerError, match="expected one row of 10 numbers, found 0: out of memory"):
        batched_speed("main: begins\nout of memory\n")


def test_programs_are_found_where_a_build_leaves_them(tmp_path: Path) -> None:
    built = tmp_path / "build" / "bin"
    built.mkdir(parents=True)
    for place in (built, tmp_path):
        script(place / "llama-bench", "")
    script(built / "llama-server", "")
    found = programs_in(tmp_path)
    assert found == {
        "llama-bench": tmp_path / "llama-bench", "llama-server": built / "llama-server"
    }  # fmt: skip
