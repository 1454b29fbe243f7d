"""What a request held goes with it, and waits for no collection of garbage."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from octavo.server.write_now import WriteNow
from octavo.serving.token_stream import TokenStream
from tests.server.live import Live, leave, until

COMPLETIONS = "/v1/completions"


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[weakref.WeakSet[object]]:
    """The streams of the engine, and what writes to connections, that were made and are not gone;
    meanwhile garbage is not collected."""
    made: weakref.WeakSet[object] = weakref.WeakSet()
    for kind in (TokenStream, WriteNow):
        begin = kind.__init__

        def noting(self: object, *given: object, _begin: object = begin, **named: object) -> None:
            made.add(self)
            _begin(self, *given, **named)  # type: ignore[operator]

        monkeypatch.setattr(kind, "__init__", noting)
    gc.collect()
    gc.disable()
    yield made
    gc.enable()


@pytest.mark.parametrize("more", [{}, {"stream": True}, {"stream": True, "n": 2, "logprobs": 1}])
def test_of_an_answer(live: Live, held: weakref.WeakSet[object], more: dict[str, object]) -> None:
    assert live.post(COMPLETIONS, {"prompt": "x", "max_tokens": 3, **more}).status == 200
    until(lambda: not held)


def test_of_who_left(
    live: Live, held: weakref.WeakSet[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(live, monkeypatch, {"prompt": "x"})
    until(lambda: not held)
