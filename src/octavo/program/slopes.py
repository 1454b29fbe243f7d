"""ALiBi: what a score is raised by for each token that its key is away   (Press et al. 2022).

Knows the slopes of heads and what they make of positions, in numpy. Knows nothing of scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from octavo.program.rounding import round_bf16


@dataclass(frozen=True, slots=True)
class Slopes:
    """A scaled score of head h gets of_heads[h] * (position of the key - position of the row).

    `rounded`: scale * (b(position of the key) - b(position of the row)), with b(p) =
    bf16(bf16(of_heads[h]) * bf16(p)), as the first Falcons are computed   (Penedo et al. 2023)."""

    of_heads: tuple[float, ...]
    rounded: bool = False

    def array(self) -> NDArray[np.float32]:
        """The slopes as kernels take them, (heads,)."""
        slopes = np.array(self.of_heads, np.float32)
        return round_bf16(slopes) if self.rounded else slopes

    def biases(
        self, head: int, keys: NDArray[np.int32], row: int, scale: float
    ) -> NDArray[np.float64]:
        """What the scaled scores of keys at these positions get in a row at `row`."""
        slope = self.array()[head]
        if not self.rounded:
            return np.float64(slope) * (keys - row)
        at = [round_bf16(slope * round_bf16(p.astype(np.float32))) for p in (keys, np.array([row]))]
        return scale * (at[0].astype(np.float64) - at[1])


def alibi_slopes(heads: int, bias_max: float = 8.0) -> tuple[float, ...]:
    """2^-(bias_max / n), its square and so on, for n heads; where n is no power of two, those of
    the power below it, then every other one of twice as many."""
    power = 1 << heads.bit_length() - 1
    of_power = [2.0 ** (-bias_max * i / power) for i in range(1, power + 1)]
    between = [2.0 ** (-bias_max / 2 * i / power) for i in range(1, 2 * (heads - power), 2)]
    return (*of_power, *between)
