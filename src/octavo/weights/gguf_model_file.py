"""What a GGUF file says of its model beside the config, from its metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from octavo.model.config import ModelConfig
from octavo.sampling_params import Sampling
from octavo.tokenizer.spec import TokenizerSpec
from octavo.weights.gguf_header import MetadataValue
from octavo.weights.gguf_parts import GGUFParts
from octavo.weights.model_files import Note
from octavo.weights.part_names import part_paths
from octavo.weights.recommended_sampling import recommended_sampling
from octavo.weights.tokenizer_spec import tokenizer_spec
from octavo.weights.weight_orders import phi3, qkv_in_turn
from octavo.weights.weight_view import Views

# Of architectures whose files keep several weights in one tensor.
VIEWS: Mapping[str, Callable[[ModelConfig], Views]] = MappingProxyType(
    {
        "phi3": phi3,
        **dict.fromkeys(("bloom", "falcon", "gpt2", "mpt", "starcoder"), qkv_in_turn),
    }
)


@dataclass(frozen=True, slots=True)
class GGUFModelFile:
    path: Path
    metadata: Mapping[str, MetadataValue]
    parts: GGUFParts  # closed: what their headers said when the metadata was read

    @property
    def name(self) -> str | None:
        return self._text("general.name")

    @property
    def tokenizer_kind(self) -> str | None:
        return self._text("tokenizer.ggml.model")

    @property
    def norm_offset(self) -> float:
        return 0.0  # converters have added it

    def nbytes(self) -> int:
        return sum(each.stat().st_size for each in self.weight_files())

    def weight_files(self) -> list[Path]:
        return part_paths(self.path)

    def sampling(self, note: Note) -> Sampling | None:
        return recommended_sampling(self.metadata, note=note)

    def tokenizer_spec(self, note: Note) -> TokenizerSpec:
        return tokenizer_spec(self.metadata, note=note)

    def open_tensors(self) -> GGUFParts:
        return GGUFParts.open(self.path, self.parts)

    def tensor_name(self, name: str) -> str:
        return name

    def views(self, config: ModelConfig) -> Views:
        return VIEWS[config.architecture](config) if config.architecture in VIEWS else {}

    def _text(self, key: str) -> str | None:
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None
