"""A model directory in the layout of Hugging Face: what its files say, from which a header is made.

config.json, safetensors, tokenizer.json; tokenizer_config.json, generation_config.json and a chat
template where they are there. No code of a directory is ever run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from octavo.errors import ModelFormatError, ModelNotFoundError, UnsupportedModelError
from octavo.model.config import ModelConfig
from octavo.sampling_params import Sampling
from octavo.tokenizer.spec import TokenizerSpec
from octavo.weights.hf.config import family, model_config, text_fields
from octavo.weights.hf.family import Family
from octavo.weights.hf.json_fields import Fields, read_json
from octavo.weights.hf.special import chat_templates, end_ids, stated_ids
from octavo.weights.hf.tensors import INDEX, WHOLE, DirectoryTensors, weight_files
from octavo.weights.hf.tokenizer import token_count, tokenizer_spec
from octavo.weights.mapped_file import read_text
from octavo.weights.model_files import Note, naming
from octavo.weights.recommended_sampling import checked_sampling
from octavo.weights.weight_view import Views

CONFIG, TOKENIZER, JINJA = "config.json", "tokenizer.json", "chat_template.jinja"
GENERATION, TOKENIZER_CONFIG = "generation_config.json", "tokenizer_config.json"
_JSON = (CONFIG, TOKENIZER, GENERATION, TOKENIZER_CONFIG, "chat_template.json")
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


def files_of(path: Path) -> list[Path]:
    """All files that a model is read from. Raises ModelError if the directory holds none."""
    _check_config(path)
    beside = [path / name for name in (*_JSON, JINJA)]
    return [each for each in beside if each.exists()] + weight_files(path)


def named_files(path: Path) -> list[Path]:
    """The files with names of their own that a model may be read from, there or not."""
    return [path / name for name in (*_JSON, JINJA, WHOLE, INDEX)]


def open_directory(path: Path) -> ModelDirectory:
    """Read all files but the weights. Raises ModelError."""
    _check_config(path)
    files = {name: read_json(path / name) for name in _JSON if (path / name).exists()}
    fields = {name: Fields(name, values) for name, values in files.items()}
    jinja = read_text(path / JINJA) if (path / JINJA).exists() else None
    return ModelDirectory(path, fields, jinja)


def _check_config(path: Path) -> None:
    try:
        if (path / CONFIG).exists():
            return
    except OSError as error:  # a directory that may not be looked into
        raise ModelNotFoundError(f"cannot open {path}: {error.strerror}") from None
    if (path / "adapter_config.json").exists():
        raise UnsupportedModelError(f"{path} is a LoRA adapter: Octavo runs whole models")
    if found := sorted(each.name for each in path.glob("*.gguf")):
        raise UnsupportedModelError(
            f"{path} has no {CONFIG}; give the path of a GGUF file in it: {', '.join(found[:5])}"
        )
    raise ModelFormatError(
        f"{path} has no {CONFIG}: give a model directory in Hugging Face's layout, or the path of "
        "a GGUF file"
    )


@dataclass(frozen=True)
class ModelDirectory:
    path: Path
    fields: Mapping[str, Fields]  # by the name of the file; of those that are there
    jinja: str | None  # what chat_template.jinja has

    @property
    def name(self) -> str | None:
        return None

    @property
    def tokenizer_kind(self) -> str | None:
        file = self.fields.get(TOKENIZER)
        return None if file is None else file.fields("model").text("type", default="BPE")

    @property
    def norm_offset(self) -> float:
        return self.family.norm_offset

    @cached_property
    def family(self) -> Family:
        return family(self.fields[CONFIG])

    @cached_property
    def _text(self) -> Fields:
        """The fields of the text model in config.json."""
        return text_fields(self.fields[CONFIG], self.family)

    @cached_property
    def rows(self) -> int:
        """Return the rows of the embedding, by config.json."""
        return self._text.whole("vocab_size", least=1)

    @cached_property
    def tokens(self) -> int:
        """Rows of the embedding that are tokens; of the others no answer is made."""
        file = self.fields.get(TOKENIZER)
        return self.rows if file is None else token_count(file, self.rows)

    def nbytes(self) -> int:
        return sum(each.stat().st_size for each in files_of(self.path))

    def weight_files(self) -> list[Path]:
        return [each for each in weight_files(self.path) if each.suffix == ".safetensors"]

    def config(self) -> ModelConfig:
        with naming(self.path):
            return replace(model_config(self.fields[CONFIG]), padding=self.rows - self.tokens)

    def notes(self) -> list[str]:
        """What is left out, or in no answer."""
        found = []
        if self.fields[CONFIG].has("auto_map"):
            found.append(f"{CONFIG}: auto_map is ignored: no code of a model is run")
        if left_out := self.family.left_out:
            parts = " and ".join(prefix.removesuffix(".") for prefix in left_out)
            found.append(f"only the text model is run: the tensors of {parts} are left out")
        return found

    def open_tensors(self) -> DirectoryTensors:
        tied_head = self._text.flag("tie_word_embeddings")
        return DirectoryTensors(self.path, self.family, rows=self.rows, tied_head=tied_head)

    def tensor_name(self, name: str) -> str:
        return self.family.their_name(name)

    def views(self, config: ModelConfig) -> Views:
        return self.family.views(config)

    def sampling(self, note: Note) -> Sampling | None:
        """As generation_config.json recommends; what shapes a draw means nothing where it asks for
        the likeliest token."""
        file = self.fields.get(GENERATION)
        if file is None:
            return None
        asked = {name: file.values[name] for name in _SAMPLING if file.has(name)}
        if file.values.get("do_sample") is False:
            kept = {name: value for name, value in asked.items() if name == "repetition_penalty"}
            asked = {"temperature": 0.0, **kept}
        return checked_sampling(asked, note=note) if asked else None

    def tokenizer_spec(self, note: Note) -> TokenizerSpec:
        file = self.fields.get(TOKENIZER)
        if file is None:
            why = f"there is no {TOKENIZER}"
            if (self.path / "tokenizer.model").exists():
                why += ", only tokenizer.model: save it again with the fast tokenizer"
            raise UnsupportedModelError(why)
        spec = tokenizer_spec(file, self.rows, note)
        stated = stated_ids(self.fields.get(TOKENIZER_CONFIG), spec, note)
        sayers = (self.fields.get(GENERATION), self.fields[CONFIG], self._text)
        ends = next(
            (
                end_ids(each, len(spec.tokens), note)
                for each in sayers
                if each is not None and each.has("eos_token_id")
            ),
            (),
        )
        named = chat_templates(self.fields, self.jinja, note)
        template = named.pop("default", None)
        return replace(spec, **stated, end_ids=ends, chat_template=template, named_templates=named)
