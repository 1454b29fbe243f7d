"""Texts become token ids: by SmolLM2's tokenizer where the model was pulled, else byte by byte.

Knows chats as turns. Knows nothing of caches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from benchmarks.data import Turn
from octavo.environment import home
from octavo.tokenizer import Tokenizer
from octavo.weights.library import LIBRARY
from octavo.weights.model_header import read_header

MODEL = "smollm2"
Message = dict[str, str]


class Exchange(NamedTuple):
    """A prompt, and the tokens that the model is made to answer before it ends its turn."""

    prompt: list[int]
    answer: list[int]


class Encoder(Protocol):
    name: str
    vocab_size: int

    def text(self, text: str) -> list[int]: ...
    def chat(self, messages: Sequence[Message]) -> list[int]:
        """Up to where the assistant begins to speak."""
        ...


class ModelEncoder:
    def __init__(self, path: Path) -> None:
        spec = read_header(path).tokenizer_spec()
        self.name = f"tokens of {MODEL}"
        self._tokenizer = Tokenizer.from_spec(spec, cache_dir=home() / "tokenizers")
        self.vocab_size = self._tokenizer.vocab_size

    def text(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special=False)

    def chat(self, messages: Sequence[Message]) -> list[int]:
        return self._tokenizer.encode_chat(messages)


class ByteEncoder:
    """A token a byte, and two that frame a message."""

    name = "bytes"
    vocab_size = 258

    def text(self, text: str) -> list[int]:
        return list(text.encode())

    def chat(self, messages: Sequence[Message]) -> list[int]:
        ids: list[int] = []
        for message in messages:
            ids += [256, *self.text(f"{message['role']}\n{message['content']}"), 257]
        return [*ids, 256, *self.text("assistant\n")]


def find_encoder() -> Encoder:
    model = LIBRARY[MODEL]
    return ModelEncoder(model.path(home())) if model.is_installed(home()) else ByteEncoder()


def dialogue(encoder: Encoder, turns: Sequence[Turn]) -> Iterator[Exchange]:
    """One request a turn; every earlier turn is part of its prompt, answers as they are given."""
    messages: list[Message] = []
    for turn in turns:
        messages.append({"role": "user", "content": turn.user})
        yield Exchange(encoder.chat(messages), encoder.text(turn.answer))
        messages.append({"role": "assistant", "content": turn.answer})
