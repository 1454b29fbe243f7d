"""Sums: a constraint without a grammar. The sum of an answer's tokens never divides by `modulus`,
and the answer is whole when it has `most` of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from octavo.constraint import ConstraintState, Words


@dataclass(frozen=True)
class Sums:
    modulus: int
    most: int
    vocabulary: object = None

    def start(self) -> ConstraintState:
        return SumsState(self)

    def allows(self, tokens: list[int]) -> bool:
        return sum(tokens) % self.modulus != 0


@dataclass
class SumsState:
    rule: Sums
    tokens: list[int] = field(default_factory=list)

    def fill_mask(self, words: Words) -> None:
        assert len(self.tokens) < self.rule.most
        every = sum(self.tokens) + np.arange(32 * len(words))
        bits = (every % self.rule.modulus != 0).astype(np.uint8)
        words[:] = np.packbits(bits, bitorder="little").view(np.uint32)

    def accept(self, token: int) -> None:
        self.tokens.append(token)
        assert self.rule.allows(self.tokens)

    def fork(self) -> ConstraintState:
        return SumsState(self.rule, list(self.tokens))

    @property
    def is_done(self) -> bool:
        return len(self.tokens) == self.rule.most
