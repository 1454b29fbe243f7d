"""What is known of a model before a weight is read: its file's header, its sizes, its program.

Needs no compiled core, so that planning works where nothing can run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from octavo.cli.loading import find_or_pull
from octavo.errors import ModelFormatError
from octavo.model.config import ModelConfig
from octavo.model.registry import build_program
from octavo.program.ops import Program
from octavo.weights.gguf import GGUFFile
from octavo.weights.gguf_config import model_config
from octavo.weights.gguf_header import MetadataValue, TensorInfo


@dataclass(frozen=True, slots=True)
class ModelFacts:
    name: str  # as the user gave it
    path: Path
    config: ModelConfig
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, MetadataValue]

    def program(self) -> Program:
        """UnsupportedModelError where Octavo does not run the architecture."""
        return build_program(self.config)

    def weight_bytes(self) -> dict[str, float]:
        """Of each weight of the program, as the file has it."""
        names = list(self.program().weights())
        missing = [name for name in names if name not in self.tensors]
        if missing:
            raise ModelFormatError(f"{self.path}: tensor {missing[0]!r} is missing")
        return {name: float(self.tensors[name].nbytes) for name in names}

    def tensor_types(self) -> dict[str, tuple[int, int]]:
        """Tensors of each type and their bytes; the type with the most bytes first."""
        number: Counter[str] = Counter()
        nbytes: Counter[str] = Counter()
        for info in self.tensors.values():
            number[info.type.name] += 1
            nbytes[info.type.name] += info.nbytes
        return {name: (number[name], total) for name, total in nbytes.most_common()}


def read_facts(model: str) -> ModelFacts:
    """From the header of the model's file; a library model that is missing is pulled."""
    path = find_or_pull(model)
    with GGUFFile.open(path) as file:
        config = model_config(file.metadata, file.tensors)
        return ModelFacts(model, path, config, file.tensors, file.metadata)
