"""What a tokenizer is, as data: pieces, types, scores or merges, special ids, flags.

Comes in: lists read from a model file by `weights/`. Goes out: checked facts that the builders rely
on. Does not know where the lists came from, nor how a text is split.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Literal

import numpy as np

from octavo.errors import ModelFormatError, UnsupportedModelError
from octavo.tokenizer.control_names import CONTROL_NAMES


class TokenType(IntEnum):
    """The token types of GGUF, which are sentencepiece's."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, eq=False)
class TokenizerSpec:
    """One vocabulary. bpe has `merges` ("left right", best first), spm has them or `scores`."""

    kind: Literal["bpe", "spm"]
    pre: str  # the pre-tokenizer's name in GGUF; used by bpe only
    tokens: list[str]
    token_types: np.ndarray | list[int]  # (num_tokens,) int32
    scores: list[float] | None = None  # (num_tokens,)
    merges: list[str] | None = None
    bos_id: int | None = None
    eos_id: int | None = None
    unk_id: int | None = None
    eot_id: int | None = None
    pad_id: int | None = None
    add_bos: bool = False
    add_eos: bool = False
    add_space_prefix: bool = False  # a blank goes in front of a text
    prefix_bare_only: bool = False  # but not of one that begins with a blank
    prefix_first_only: bool = False  # nor of what follows a special token
    chat_template: str | None = None  # the default one
    named_templates: Mapping[str, str] = field(default_factory=dict)  # the others, by name
    end_ids: tuple[int, ...] = ()  # more tokens that end an answer
    composes: bool | None = None  # characters, first (NFC); None: as `pre` is known to
    ignore_merges: bool | None = None  # for words that are tokens; None: as `pre` is known to
    # control tokens that take the white space beside them, where they are read in a text
    strip_left: frozenset[int] = frozenset()
    strip_right: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if self.kind not in ("bpe", "spm"):
            raise UnsupportedModelError(
                f"tokenizer kind {self.kind!r} is not supported; Octavo reads 'bpe' and 'spm'"
            )
        self._check_length("token_types", self.token_types)
        if self.kind == "bpe" and self.merges is None:
            raise ModelFormatError("a byte-level BPE tokenizer needs merges; the model has none")
        if self.kind == "spm" and self.merges is None:
            if self.scores is None:
                raise ModelFormatError("an SPM tokenizer needs scores; the model has none")
            self._check_length("scores", self.scores)
        for name in ("bos_id", "eos_id", "unk_id", "eot_id", "pad_id"):
            self._check_id(name, getattr(self, name))
        for token_id in self.end_ids:
            self._check_id("end_ids", token_id)
        if self.add_bos and self.bos_id is None:
            raise ModelFormatError("the tokenizer asks for a BOS token but names none (bos_id)")
        if self.add_eos and self.eos_id is None:
            raise ModelFormatError("the tokenizer asks for an EOS token but names none (eos_id)")
        if len(set(self.byte_of.values())) < len(self.byte_of):
            raise ModelFormatError("two tokens of type BYTE stand for the same byte")

    def _check_length(self, name: str, values: Sequence[float] | np.ndarray) -> None:
        if len(values) != len(self.tokens):
            raise ModelFormatError(
                f"tokenizer {name} has {len(values)} entries for {len(self.tokens)} tokens"
            )

    def _check_id(self, name: str, token_id: int | None) -> None:
        if token_id is not None and not 0 <= token_id < len(self.tokens):
            raise ModelFormatError(
                f"tokenizer {name} is {token_id}, outside the vocabulary of {len(self.tokens)}"
            )

    @cached_property
    def types(self) -> list[int]:
        return np.asarray(self.token_types, dtype=np.int32).tolist()  # type: ignore[no-any-return]

    @cached_property
    def control_ids(self) -> frozenset[int]:
        """Ids that plain text never yields: those typed so, and `retyped_ids`."""
        return self._typed_control.union(self.retyped_ids)

    @cached_property
    def retyped_ids(self) -> list[int]:
        """Control tokens that the file types as text: BOS, EOS, EOT, and the well-known names.

        No user may be able to type them.
        """
        typed = self._typed_control
        names = CONTROL_NAMES.intersection(self.tokens).difference(self.tokens[i] for i in typed)
        found = {self.tokens.index(name) for name in names}
        found.update(i for i in self._steering_ids if i is not None)
        return sorted(i for i in found - typed if not self._is_word(i))

    @cached_property
    def _typed_control(self) -> frozenset[int]:
        types = np.asarray(self.token_types)
        return frozenset(np.flatnonzero(types == TokenType.CONTROL).tolist())

    @property
    def _steering_ids(self) -> tuple[int | None, ...]:
        return (self.bos_id, self.eos_id, self.eot_id, *self.end_ids)

    def _is_word(self, token_id: int) -> bool:
        """Whether merges build the token: files without a BOS have named a comma."""
        piece = self.tokens[token_id]
        is_byte = self.types[token_id] == TokenType.BYTE or len(piece) == 1
        return is_byte or any(merge.replace(" ", "", 1) == piece for merge in self.merges or ())

    @cached_property
    def byte_of(self) -> dict[int, int]:
        """Return the bytes that the BYTE tokens of spm stand for, by id."""
        if self.kind != "spm":
            return {}
        ids = np.flatnonzero(np.asarray(self.token_types) == TokenType.BYTE).tolist()
        return {i: self._byte(i) for i in ids}

    def _byte(self, token_id: int) -> int:
        """Read a byte token by its name <0x0A>; a lone character and a lost bracket will do too."""
        piece = self.tokens[token_id]
        if found := re.fullmatch("<0x([0-9A-Fa-f]{2})>?", piece):
            return int(found[1], 16)
        if len(piece) == 1 and piece.isascii():
            return ord(piece)
        raise ModelFormatError(
            f"token {token_id} is of type BYTE: expected a name such as <0x0A>, found {piece!r}"
        )

    @cached_property
    def user_defined_ids(self) -> list[int]:
        """Ids of pieces that are matched in plain text before anything else."""
        types = np.asarray(self.token_types)
        ids = np.flatnonzero(types == TokenType.USER_DEFINED).tolist()
        return [i for i in ids if i not in self.control_ids and self.tokens[i]]

    def template_for(self, *, tools: bool) -> str | None:
        """The chat template to use: `tool_use` where tools are given and it is there, else the
        default one."""
        named = self.named_templates.get("tool_use") if tools else None
        return self.chat_template if named is None else named

    def digest(self, salt: str) -> str:
        """SHA-256 over `salt` and everything that changes how text is split (not the template)."""
        sha = hashlib.sha256()
        control = sorted(self.control_ids)
        facts = [salt, self.kind, self.pre, repr(self.unk_id), repr(control)]
        stated = {"composes": self.composes, "ignore_merges": self.ignore_merges}
        facts += [f"{name} {value}" for name, value in stated.items() if value is not None]
        for part in (facts, self.tokens, self.merges or []):
            _update(sha, part)
        sha.update(np.asarray(self.token_types, dtype="<i4").tobytes())
        if self.scores is not None:
            sha.update(np.asarray(self.scores, dtype="<f8").tobytes())
        return sha.hexdigest()


def _update(sha: hashlib._Hash, strings: Iterable[str]) -> None:
    """Hash a list of strings without ambiguity: the count, all lengths, then all characters."""
    strings = list(strings)
    sizes = np.fromiter(map(len, strings), dtype="<i8", count=len(strings))
    sha.update(len(strings).to_bytes(8, "little"))
    sha.update(sizes.tobytes())
    sha.update("".join(strings).encode("utf-8", "surrogatepass"))
