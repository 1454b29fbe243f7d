"""What a kind of model file must tell: GGUF files and Hugging Face directories have this in common.

Comes in: nothing; these are the protocols that `model_header` and `model_weights` read either kind
through. Knows no format.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from octavo.errors import ModelFormatError, UnsupportedModelError
from octavo.model.config import ModelConfig
from octavo.sampling_params import Sampling
from octavo.tokenizer.spec import TokenizerSpec
from octavo.weights.gguf_header import TensorInfo
from octavo.weights.weight_view import Views

Note = Callable[[str], None]  # is told what is wrong and left out, because nothing needs it


class OpenTensors(AbstractContextManager["OpenTensors"], Protocol):
    """A model's tensors by the program's names, those that hold several weights by llama.cpp's; a
    context manager."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]: ...

    def data(self, name: str) -> npt.NDArray[np.uint8]:
        """The tensor's bytes in place; dropped before the tensors are closed."""

    def drop(self, name: str) -> None:
        """Take the tensor's pages out of RSS."""


class ModelFiles(Protocol):
    """What a model's files say beside its config; errors do not name the model's path."""

    @property
    def name(self) -> str | None:
        """What its makers call it."""

    @property
    def tokenizer_kind(self) -> str | None:
        """What the files call the kind of tokenizer, whether Octavo runs it or not."""

    @property
    def norm_offset(self) -> float:
        """What is added to the weights of norms, in float32."""

    def nbytes(self) -> int: ...

    def weight_files(self) -> list[Path]:
        """The files that hold the tensors, in order."""

    def sampling(self, note: Note) -> Sampling | None:
        """How its makers recommend to draw tokens, if they do."""

    def tokenizer_spec(self, note: Note) -> TokenizerSpec: ...

    def open_tensors(self) -> OpenTensors: ...

    def tensor_name(self, name: str) -> str:
        """What the files call a tensor."""

    def views(self, config: ModelConfig) -> Views:
        """Where the weights are that are not tensors of their own, as the program has them."""


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the path in front of errors of those who know what is in a file but not its name; those
    that name it already stay as they are."""
    try:
        yield
    except (ModelFormatError, UnsupportedModelError) as error:
        if str(error).startswith(f"{path}: "):
            raise
        raise type(error)(f"{path}: {error}") from None
