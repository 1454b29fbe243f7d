"""GGUF file: a mapped model file, its header, and its tensors' raw bytes.

`mapped_file` knows the mapping and its lifetime, `gguf_header` the format, `dequantize` the bytes.
Arrays from `data` point into the mapping: drop them before `close`; then nothing maps the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from octavo.weights.gguf_header import Header, MetadataValue, TensorInfo, parse_header
from octavo.weights.mapped_file import MappedFile


class GGUFFile(MappedFile):
    """An open GGUF file; a context manager."""

    def __init__(self, path: Path, before: GGUFFile | None = None) -> None:
        super().__init__(path, kind="a GGUF file")
        try:
            if before is not None and self.is_still(before):
                header = before._header
            else:
                header = parse_header(self.mapping, str(path))
        except BaseException:
            self.close()
            raise
        self._header: Header = header
        self.version = header.version
        self.metadata: dict[str, MetadataValue] = header.metadata
        self.tensors: dict[str, TensorInfo] = header.tensors
        self.notes: list[str] = header.notes

    @classmethod
    def open(cls, path: str | Path, before: GGUFFile | None = None) -> Self:
        """Map the file and check its whole header. `before` was the same path when it was last
        open, closed or not: only a file that is another now, or was written to, is read again."""
        return cls(Path(path), before)

    def data(self, name: str) -> npt.NDArray[np.uint8]:
        """The tensor's bytes, (nbytes,) uint8, read-only, in place: nothing is read yet."""
        info = self.tensors[name]
        return self.bytes_at(info.offset, info.nbytes)

    def drop(self, name: str) -> None:
        """Take the pages that hold only this tensor out of RSS; reading brings them back."""
        info = self.tensors[name]
        self.drop_at(info.offset, info.nbytes)
