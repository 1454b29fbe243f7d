"""Programs that end with something of Octavo's still open, and how each has to end.

Each gets the path of a model. They run in processes of their own: `run_program` gives what became
of one, in whichever Python.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_PATIENCE = 60  # seconds, for a program that would never end
_SLOW_END = "atexit.register(time.sleep, 1)  # runs after what Octavo registers"
_START = """\
import asyncio, atexit, signal, sys, threading, time
def at_exit():
    llm.generate("One more.", SamplingParams(max_tokens=2))
{before}
from octavo import LLM, AsyncEngine, SamplingParams
llm = LLM(sys.argv[1], threads=2, context=1024)
TEXT, LONG = "Once upon a time", SamplingParams(temperature=0, max_tokens=900, ignore_eos=True)
"""


@dataclass(frozen=True)
class Program:
    code: str
    exit_code: int = 0
    last_line: str = ""  # of standard error, which is else empty
    before: str = ""  # Octavo is imported


PROGRAMS = {
    "a stream at module level": Program("stream = llm.stream(TEXT, LONG)\nfor _ in stream: break"),
    "an engine that its thread lets go of last": Program(
        """
class Slow:
    def __del__(self):
        time.sleep(0.5)
        print("it is gone", file=sys.stderr)
import weakref
llm.generate(TEXT, SamplingParams(max_tokens=1))
llm.loop.engine.slow, loop = Slow(), weakref.ref(llm.loop)
begun = threading.Event()
llm.loop.soon(lambda loop: (begun.set(), time.sleep(0.2)))  # the thread has the loop meanwhile
begun.wait()
del llm
while loop() is not None: time.sleep(0.01)""",
        last_line="it is gone",
    ),
    "a stream that nobody read": Program("stream = llm.stream(TEXT, LONG)"),
    "a stream of a function": Program(
        """
def tell():
    stream = llm.stream(TEXT, LONG)
    for _ in stream: break
tell()"""
    ),
    "a stream in a cycle": Program(
        """
def tell():
    stream = llm.stream(TEXT, LONG)
    held = [stream]
    held.append(held)
    for _ in stream: break
tell()"""
    ),
    "a stream of a thread": Program(
        """
def tell():
    global stream
    stream = llm.stream(TEXT, LONG)
    for _ in stream: break
threading.Thread(target=tell).start()"""
    ),
    "a stream that a finalizer drops": Program(
        """
class Owner:
    def __del__(self): self.stream = None
owner = Owner()
owner.stream = llm.stream(TEXT, LONG)
for _ in owner.stream: break"""
    ),
    "a daemon thread in a stream": Program(
        """
began = threading.Event()
def tell():
    while True:
        for _ in llm.stream(TEXT, LONG): began.set()
threading.Thread(target=tell, daemon=True).start()
began.wait()"""
    ),
    "a daemon thread in generate, with a model of its own": Program(
        """
began = threading.Event()
def tell():
    llm = LLM(sys.argv[1], threads=2, context=1024)
    while True:
        began.set()
        llm.generate([list(range(20, 900))] * 2, LONG)
threading.Thread(target=tell, daemon=True).start()
began.wait()"""
    ),
    "a daemon thread that loads": Program(
        """
began = threading.Event()
def load():
    while True:
        began.set()
        LLM(sys.argv[1], threads=2)
threading.Thread(target=load, daemon=True).start()
began.wait()"""
    ),
    "an AsyncEngine that nobody closed": Program(
        """
async def tell():
    global engine, stream
    engine = AsyncEngine(llm)
    stream = engine.stream(TEXT, LONG)
    async for _ in stream: break
asyncio.run(tell())"""
    ),
    "an AsyncEngine in a daemon thread": Program(
        """
began = threading.Event()
async def tell():
    engine = AsyncEngine(llm)
    while True:
        async for _ in engine.stream(TEXT, LONG): began.set()
threading.Thread(target=lambda: asyncio.run(tell()), daemon=True).start()
began.wait()"""
    ),
    "a daemon thread while the end takes long": Program(
        """
began = threading.Event()
def tell():
    for chunk in llm.stream(TEXT, LONG): began.set()
    print("it was told", chunk.output, file=sys.stderr)
threading.Thread(target=tell, daemon=True).start()
began.wait()""",
        before=_SLOW_END,
    ),
    "an AsyncEngine in a daemon thread while the end takes long": Program(
        """
began = threading.Event()
async def tell():
    engine = AsyncEngine(llm)
    while True:
        async for _ in engine.stream(TEXT, LONG): began.set()
threading.Thread(target=lambda: asyncio.run(tell()), daemon=True).start()
began.wait()""",
        before=_SLOW_END,
    ),
    "a stream that goes on when Python ends": Program(
        """
stream = llm.stream(TEXT, LONG)
next(stream)""",
        before="atexit.register(lambda: list(stream))  # runs after what Octavo registers",
    ),
    "a call when Python ends": Program(
        "", before="atexit.register(at_exit)  # runs after what Octavo registers"
    ),
    "sys.exit in the body": Program("for _ in llm.stream(TEXT, LONG): sys.exit(7)", 7),
    "sys.exit in a coroutine": Program(
        """
async def tell():
    async with AsyncEngine(llm) as engine:
        async for _ in engine.stream(TEXT, LONG): sys.exit(7)
asyncio.run(tell())""",
        7,
    ),
    "Ctrl-C": Program(
        """
signal.signal(signal.SIGINT, signal.default_int_handler)
for _ in llm.stream(TEXT, LONG): signal.raise_signal(signal.SIGINT)""",
        -2,
        "KeyboardInterrupt",
    ),
    "an error of the caller": Program(
        "for _ in llm.stream(TEXT, LONG): raise OSError('mine')", 1, "OSError: mine"
    ),
}


def run_program(
    name: str, python: str | Path, model: Path, environ: Mapping[str, str] | None = None
) -> tuple[int, str, str]:
    """The exit code, standard output, and the last line of standard error."""
    program = PROGRAMS[name]
    code = _START.format(before=program.before) + program.code
    command = [python, "-c", code, model]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, env=environ)
    errors = done.stderr.splitlines() or [""]
    assert program.last_line or not done.stderr, done.stderr
    return done.returncode, done.stdout, errors[-1]


def expected(name: str) -> tuple[int, str, str]:
    return PROGRAMS[name].exit_code, "", PROGRAMS[name].last_line
