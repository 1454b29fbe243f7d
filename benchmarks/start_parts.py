"""Tells what the parts of a start take: runs the command line, its imports and steps counted.

    python -m benchmarks.start_parts BEGAN run MODEL PROMPT …

BEGAN is what `time.perf_counter` said before this process was started. Prints one JSON object
behind the answer: milliseconds by part. A part is what its thread computed in it (CPU, the
kernel's share too), less what other parts inside it took; "rest" is what nobody counts, and
waiting. Counting costs some milliseconds itself.
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()  # before what this file itself imports

import builtins  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

# Part: functions that are counted as it, each where it is looked up when it is called.
PARTS = {
    "command line": [("octavo.cli.app", "build_app"), ("octavo.cli.app", "Group.make_context")],
    "header": [("octavo.loaded_model", "read_header")],
    "program": [("octavo.weights.model_header", "ModelHeader.program")],
    "tokenizer": [("octavo.loaded_model", "Tokenizer.from_spec")],
    "packed weights": [
        ("octavo.loaded_model", "_pack_file"),
        ("octavo.weights.pack_cache", "PackFile.read"),
    ],
    "engine": [("octavo.loaded_model", "Runner"), ("octavo.loaded_model", "make_engine")],
    "prompt": [
        ("octavo.serving.llm", "LLM.encode"),
        ("octavo.serving.llm", "LLM.encode_chat"),
    ],
    "first step": [("octavo.engine.engine", "Engine.step")],
}


class Parts:
    """CPU time by part; each thread has a stack of the parts that it is in."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = dict.fromkeys(("imports", *PARTS), 0.0)
        self._here = threading.local()

    def counted(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            self._turn(part)
            try:
                return function(*arguments, **keywords)
            finally:
                self._turn(None)

        return call

    def _turn(self, part: str | None) -> None:
        """Enter a part, or leave the last one."""
        now, here = time.thread_time(), self._here
        stack: list[str] = here.__dict__.setdefault("stack", [])
        if stack:
            self.spent[stack[-1]] += now - here.since
        stack.append(part) if part is not None else stack.pop()
        here.since = now


class Imports:
    """`import`, which tells when a module with counted functions has come in."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._left = [(part, *place) for part, places in PARTS.items() for place in places]
        self._import = parts.counted("imports", builtins.__import__)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        found = self._import(*arguments, **keywords)
        for each in [each for each in self._left if _is_whole(each[1])]:
            self._left.remove(each)
            self._count(*each)
        return found

    def _count(self, part: str, module: str, name: str) -> None:
        *outer, last = name.split(".")
        owner: Any = sys.modules[module]
        for each in outer:
            owner = getattr(owner, each)
        counted = self._parts.counted(part, getattr(owner, last))
        is_bound = hasattr(getattr(owner, last), "__self__")
        setattr(owner, last, staticmethod(counted) if is_bound else counted)


def _is_whole(module: str) -> bool:
    spec = getattr(sys.modules.get(module), "__spec__", None)
    return spec is not None and not getattr(spec, "_initializing", False)


def main() -> None:
    began, *arguments = sys.argv[1:]
    parts, shown = Parts(), []
    builtins.__import__ = Imports(parts)
    from octavo.cli import app
    from octavo.cli.screen import Screen

    write = Screen.write

    def first(screen: Screen, text: str) -> None:
        shown.append(time.perf_counter())
        write(screen, text)

    Screen.write = first  # type: ignore[method-assign, assignment]
    try:
        app.main(arguments)
    except SystemExit as end:
        if end.code:
            raise
    total = shown[0] - float(began)
    found = {"python": STARTED - float(began), **parts.spent}
    found["rest"] = total - sum(found.values())
    found["all of it, counted"] = total
    print(json.dumps({name: seconds * 1e3 for name, seconds in found.items()}))


if __name__ == "__main__":
    main()
