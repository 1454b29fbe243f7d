"""`octavo serve` as a process: how it begins, what it refuses, and how it ends."""

from __future__ import annotations

import http.client
import json
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.cli.process import end, environ, run_python, start
from tests.cli.result import Result
from tests.cli.tiny_model import TEMPLATE, write_tiny_model
from tests.gate import PATIENCE

ENDLESS = {"prompt": "x", "ignore_eos": True, "max_tokens": 120, "stream": True}


@contextmanager
def serving(
    path: Path, *flags: str, env: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    flags = ("--port", "0", "--json", "--threads", "1", *flags)
    process = start("serve", str(path), *flags, env=environ() if env is None else env)
    try:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        assert said["model"] == path.name
        yield process, int(said["address"].rpartition(":")[2])
    finally:
        if process.poll() is None:
            process.kill()
            end(process)


@contextmanager
def ask(
    port: int, body: object, *, received: int | None = None
) -> Iterator[http.client.HTTPResponse]:
    """`received`: bytes that wait in the socket at most until they are read, or the system's."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.connect()
    if received is not None:
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, received)
    headers = {"content-type": "application/json"}
    connection.request("POST", "/v1/completions", json.dumps(body), headers)
    with closing(connection), connection.getresponse() as response:
        yield response


def test_open_requests_end_before_the_server_does(tiny_path: Path) -> None:
    with serving(tiny_path) as (process, port), ask(port, ENDLESS) as response:
        process.send_signal(signal.SIGTERM)
        body = response.read()
        assert body.endswith(b"data: [DONE]\n\n")
        done = end(process)
        assert (done.code, done.out) == (0, "")


def test_what_does_not_end_in_time_is_told(tiny_path: Path) -> None:
    flags = ("--drain", "0", "--stream-gap-ms", "10000")  # so that it is open when it comes
    with serving(tiny_path, *flags) as (process, port), ask(port, ENDLESS) as response:
        assert response.read(6) == b"data: "
        process.send_signal(signal.SIGINT)
        body = response.read()
        assert b"data: [DONE]" not in body
        assert b'data: {"error":{"message":"the server is shutting down"' in body
        assert end(process).code == 0


def test_a_form_of_tool_calls_that_is_not_read_is_told(tmp_path: Path) -> None:
    told = TEMPLATE + "{% if tools %}{{ tools | tojson }}{% endif %}"
    path = write_tiny_model(tmp_path / "foreign.gguf", template=told)
    line = "octavo: the chat template's form of tool calls is not read here: the system message "
    for flags, expected in (((), 1), (("--tool-format", "hermes"), 0)):
        with serving(path, *flags) as (process, _):
            process.send_signal(signal.SIGTERM)
            assert sum(each.startswith(line) for each in end(process).err.splitlines()) == expected


def test_a_second_signal_ends_at_once(tiny_path: Path) -> None:
    flags = ("--stream-gap-ms", "10000")  # so that it is open when the signals come
    with serving(tiny_path, *flags) as (process, port), ask(port, ENDLESS):
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert any("waiting up to 30 s" in line for line in process.stderr)
        process.send_signal(signal.SIGTERM)
        done = end(process)
        assert (done.code, done.err) == (1, "octavo: ended at once: 1 open request broken off\n")


def test_a_second_signal_that_breaks_off_nothing_is_no_failure(tiny_path: Path) -> None:
    """It comes while the server closes, or after that, while the process ends."""
    for both in (signal.SIGTERM, signal.SIGINT):
        with serving(tiny_path) as (process, _):
            process.send_signal(both)
            process.send_signal(both)
            assert end(process).code == 0


def test_a_signal_at_the_very_end_is_no_failure(tiny_path: Path) -> None:
    program = """
import os, signal, sys
from octavo.cli import app, serve
from octavo.server import serve as server
def load(*_):
    os.kill(os.getpid(), signal.SIGTERM)
    return loading(*_)
loading, serve.open_llm = serve.open_llm, load
def run(*given, inner=server.serve):
    inner(*given)
    os.kill(os.getpid(), signal.SIGTERM)
    raise AssertionError("it lives on")
server.serve = run
app.main(["serve", sys.argv[1], "--port", "0"])
"""
    assert run_python(program, str(tiny_path)).code == 0


def test_a_reader_that_stalls_holds_no_end_up(roomy_path: Path) -> None:
    body = {**ENDLESS, "max_tokens": 4000, "n": 16, "logprobs": 20}
    serves = serving(roomy_path, "--drain", "0")
    with serves as (process, port), ask(port, body, received=4096) as response:
        assert response.read(6) == b"data: "
        while num_generated(port) < 9_000:  # more than its sender's socket holds: 6,500 fill 4 MB
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert end(process).code == 0


def test_a_signal_does_not_wait_for_the_model(tiny_path: Path) -> None:
    program = """
import os, signal, sys, threading
from octavo.cli import app, serve
def load(*_):
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait()
serve.open_llm = load
app.main(["serve", sys.argv[1], "--port", "0"])
"""
    assert run_python(program, str(tiny_path)).code == 0


def test_lines_that_nobody_reads_stop_no_answer(tiny_path: Path) -> None:
    with serving(tiny_path) as (process, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        with closing(connection):
            for _ in range(600):  # twice what a pipe holds
                connection.request("GET", f"/{'x' * 200}")
                assert connection.getresponse().read()
        process.send_signal(signal.SIGTERM)
        done = end(process)
    assert done.code == 0
    assert len(done.err.splitlines()) > 600


def test_where_files_run_out_connections_wait(tiny_path: Path) -> None:
    with serving(tiny_path) as (process, port):
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (40, 40))
        crowd = [socket.create_connection(("127.0.0.1", port), PATIENCE) for _ in range(60)]
        for each in crowd:
            each.close()
        with ask(port, {"prompt": "x", "max_tokens": 1}) as response:
            assert response.status == 200
        process.send_signal(signal.SIGTERM)
        told = [line for line in end(process).err.splitlines() if line[0] != "{"]
    assert [line for line in told if "new connections wait" in line] == [
        "octavo: new connections wait: too many open files; ulimit -n and --max-connections bound "
        "them"
    ]
    assert len(told) == 3  # and that it loads, and serves


def num_generated(port: int) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    with closing(connection):
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    name = "vllm:generation_tokens_total"
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def test_each_request_has_a_line_on_standard_error(tiny_path: Path) -> None:
    with serving(tiny_path) as (process, port):
        for prompt in ("x", "y"):
            with ask(port, {"prompt": prompt, "max_tokens": 2, "ignore_eos": True}) as response:
                response.read()
        process.send_signal(signal.SIGTERM)
        lines = [json.loads(each) for each in end(process).err.splitlines() if each[0] == "{"]
    assert [(each["status"], each["completion_tokens"]) for each in lines] == [(200, 2)] * 2


def refused(path: Path, *flags: str) -> Result:
    return end(start("serve", str(path), "--port", "0", *flags))


def test_a_port_in_use_is_one_line(tiny_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = refused(tiny_path, "--port", str(port))
    assert found.code == 2
    (line,) = found.err.splitlines()
    assert line == (
        f"octavo: cannot listen on 127.0.0.1 port {port}: address already in use; --host, --port "
        "and --uds say where"
    )


@pytest.mark.parametrize(
    ("flags", "why"),
    [(("--api-key-file", "none"), "--api-key-file 'none': no such file"),
     (("--tls-certificate", __file__), "tls_certificate and tls_key go together: give both"),
     (("--tls-certificate", __file__, "--tls-key", __file__), "cannot be used for TLS"),
     (("--host", "0.0.0.0"), "0.0.0.0 is reached from other machines, and there is no key"),
     (("--host", "no.host.invalid", "--no-auth"), "cannot listen on no.host.invalid port 0"),
     (("--port", "70000"), "--port 70000: expected a whole number from 0 to 65535")],
)  # fmt: skip
def test_bad_flags_are_one_line(tiny_path: Path, flags: tuple[str, ...], why: str) -> None:
    found = refused(tiny_path, *flags)
    assert found.code == 2
    assert why in found.err
    assert len(found.err.splitlines()) == 1


def test_a_model_that_does_not_load_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")
    found = refused(broken)
    assert found.code == 1
    assert "broken.gguf" in found.err.splitlines()[-1]


def test_a_socket_file_is_served_and_removed(tiny_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "octavo.sock"
    process = start("serve", str(tiny_path), "--uds", str(path), "--json", "--threads", "1")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["address"] == f"unix:{path}"
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert b"200 OK" in connection.recv(1000)
    cleared = end(start("cache", "clear", "--url", f"unix:{path}"))
    assert cleared == Result(0, "0 blocks forgotten\n", "")  # it is on this machine
    process.terminate()
    assert end(process).code == 0
    assert not path.exists()
