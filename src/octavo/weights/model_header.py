"""A model before its weights are read: config, tokenizer and tensor table of a GGUF file or of a
directory.

Comes in: a path. Goes out: a `ModelHeader`. Every error of a file's content names the file.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from octavo.errors import ModelFormatError, UnsupportedModelError, counted
from octavo.model.config import ModelConfig
from octavo.model.registry import build_program
from octavo.program.ops import WeightSpec
from octavo.program.program import Program
from octavo.sampling_params import Sampling
from octavo.tokenizer.spec import TokenizerSpec
from octavo.weights.dequantize import dequantize
from octavo.weights.file_stamps import Stamps, check_unchanged, stamps
from octavo.weights.gguf_config import model_config
from octavo.weights.gguf_header import TensorInfo
from octavo.weights.gguf_model_file import GGUFModelFile
from octavo.weights.gguf_parts import GGUFParts
from octavo.weights.gguf_rope import FACTORS
from octavo.weights.model_files import ModelFiles, naming
from octavo.weights.part_names import part_paths
from octavo.weights.weight_orders import expert_stacks, filled_up, latent_parts
from octavo.weights.weight_view import Part, Views, stored_bytes, view_of

_log = logging.getLogger(__name__)

# Tables of rotary frequencies: read into the config, or in old files by nobody.
_NOT_WEIGHTS = (*FACTORS, ".attn_rot_embd.weight", ".attn.rot_embd.weight")

_KV = re.compile(r"blk\.([0-9]{1,4})\.attn_(?:k|v|k_norm)\.weight")


@dataclass(frozen=True, slots=True)
class ModelHeader:
    path: Path
    config: ModelConfig
    tensors: Mapping[str, TensorInfo]  # by the program's names, or llama.cpp's
    files: ModelFiles
    seen: Stamps  # what all of this was read from, and the weights will be

    def check_unchanged(self) -> None:
        """ModelFormatError if a file was written to or replaced since it was read."""
        check_unchanged(self.seen)

    def sampling(self) -> Sampling | None:
        """Return how the model's files recommend to draw tokens, if they do."""
        return self.files.sampling(self._note)

    def program(self) -> Program:
        """Build what computes this model, all of it. UnsupportedModelError for what is left out."""
        with naming(self.path):
            program = build_program(self.config)
            self._check_all_used(program.weights())
        return program

    def views(self) -> Views:
        """Where the program's weights are that are not tensors of their own, as they are used."""
        views = {
            **self.files.views(self.config),
            **expert_stacks(self.config, self.tensors),
            **latent_parts(self.config, self.tensors),
        }
        return filled_up(views, self.config)

    def _check_all_used(self, weights: Iterable[str]) -> None:
        """A tensor that nothing reads means another model than the one the program computes."""
        views = self.views()
        used = {tensor for name in weights for tensor in view_of(views, name).names}
        for name, info in self.tensors.items():
            if name not in used and not name.endswith(_NOT_WEIGHTS) and not self._is_old_kv(name):
                layers = counted(self.config.num_layers, "layer")
                raise UnsupportedModelError(
                    f"{info.place} has no place in the {layers} of a {self.config.architecture} "
                    "model as Octavo runs it: leaving it out would change the answers"
                )

    def _is_old_kv(self, name: str) -> bool:
        """Whether it makes K and V of a layer that stores none: older files have such, which
        transformers and llama.cpp pass over too."""
        uneven, found = self.config.uneven, _KV.fullmatch(name)
        if uneven is None or found is None:
            return False
        layers = self.config.num_layers
        return layers - uneven.sharing <= int(found[1]) < layers

    def tokenizer_spec(self) -> TokenizerSpec:
        with naming(self.path):
            spec = self.files.tokenizer_spec(self._note)
        if len(spec.tokens) != self.config.tokens:
            raise ModelFormatError(
                f"{self.path}: the tokenizer has {len(spec.tokens)} tokens, "
                f"{self.files.tensor_name('token_embd.weight')!r} has rows for "
                f"{self.config.tokens}"
            )
        return spec

    def tensor_types(self) -> dict[str, tuple[int, int]]:
        """Type name -> (tensors, bytes); the type with the most bytes first."""
        count = Counter(info.type.name for info in self.tensors.values())
        nbytes: Counter[str] = Counter()
        for info in self.tensors.values():
            nbytes[info.type.name] += info.nbytes
        return {name: (count[name], total) for name, total in nbytes.most_common()}

    def parts(self, specs: Mapping[str, WeightSpec]) -> dict[str, Part]:
        """Where each weight is. ModelFormatError if its tensor is missing or has another shape."""
        views, found = self.views(), {}
        for name, spec in specs.items():
            view = view_of(views, name)
            expected = view.tensor_shape(spec.shape)
            infos = tuple(self._tensor(each, expected) for each in view.names)
            for info in infos:
                if info.type != infos[0].type:
                    raise UnsupportedModelError(
                        f"{self.path}: {info.place} is {info.type.name}, {infos[0].name!r} is "
                        f"{infos[0].type.name}: experts of a layer are run if they have one type"
                    )
            found[name] = Part(view, infos)
        return found

    def _tensor(self, name: str, expected: tuple[int, ...]) -> TensorInfo:
        info = self.tensors.get(name)
        if info is None:
            raise ModelFormatError(
                f"{self.path}: tensor {self.files.tensor_name(name)!r} is missing: expected shape "
                f"{expected}"
            )
        if info.shape != expected:
            raise ModelFormatError(
                f"{self.path}: {info.place}: expected shape {expected}, found {info.shape}"
            )
        return info

    def weight_bytes(self, specs: Mapping[str, WeightSpec]) -> dict[str, float]:
        """Return the bytes of each of these weights in its tensor's type. ModelFormatError if one
        is missing."""
        views, found = self.views(), {}
        for name, spec in specs.items():
            tensor = view_of(views, name).names[0]
            if tensor not in self.tensors:
                theirs = self.files.tensor_name(tensor)
                raise ModelFormatError(f"{self.path}: tensor {theirs!r} is missing")
            found[name] = float(stored_bytes(self.tensors[tensor].type, spec.shape))
        return found

    def _note(self, text: str) -> None:
        _note(self.path, text)


def read_header(path: Path) -> ModelHeader:
    """Config and tensor table; no weight is read but the few rope factors. Raises ModelError."""
    return _of_directory(path) if path.is_dir() else _of_gguf(path)


def _of_directory(path: Path) -> ModelHeader:
    # Here: a GGUF file's start does not wait.
    from octavo.weights.hf.directory import named_files, open_directory

    seen = stamps(named_files(path))
    files = open_directory(path)
    config = files.config()
    seen = {**seen, **stamps(files.weight_files())}
    with files.open_tensors() as found:
        tensors = found.tensors
    for text in (*files.notes(), *_padding(config)):
        _note(path, text)
    return ModelHeader(path, config, tensors, files, seen)


def _of_gguf(path: Path) -> ModelHeader:
    seen = stamps(part_paths(path))
    with GGUFParts.open(path) as file, naming(path):
        factors = {
            name: tuple(dequantize(info.type, file.data(name), info.shape).ravel().tolist())
            for name, info in file.tensors.items()
            if name in FACTORS
        }
        config = model_config(file.metadata, file.tensors, factors)
        for text in (*file.notes, *_padding(config)):
            _note(path, text)
        files = GGUFModelFile(path, file.metadata, file)
        return ModelHeader(path, config, file.tensors, files, seen)


def _padding(config: ModelConfig) -> list[str]:
    if not config.padding:
        return []
    rows = f"the embedding's rows from {config.tokens} to {config.vocab_size - 1}"
    return [f"{rows} are no tokens: no answer has them"]


def _note(path: Path, text: str) -> None:
    """Log what is wrong with the file but does not keep it from running."""
    _log.warning("%s: %s", path, text)
