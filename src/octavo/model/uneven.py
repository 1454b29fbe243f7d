"""Numbers of models whose layers differ in size, and whose last layers store no K and V: Gemma 4's.

Checked once, when made. Knows no file: who reads one names the key or field of what is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from octavo.errors import ModelFormatError

_MOST = 2**20  # as of any head or row


@dataclass(frozen=True, slots=True)
class Uneven:
    """What windowed layers have where the config's numbers are those of full ones, and how many
    layers, the last ones, attend to what the last layer before them of their kind stored."""

    windowed_head_dim: int
    windowed_kv_heads: int
    sharing: int = 0
    ffn_factor_of_sharing: int = 1  # how many times as wide their MLPs are
    layer_embedding: int = 0  # columns of the embedding that each layer has of its own; 0: none
    values_are_keys: bool = False  # in full layers: V is K's product before its norm

    def __post_init__(self) -> None:
        least = {"windowed_head_dim": 2, "windowed_kv_heads": 1, "ffn_factor_of_sharing": 1}
        for name in ("windowed_head_dim", "windowed_kv_heads", "sharing", "ffn_factor_of_sharing",
                     "layer_embedding"):  # fmt: skip
            value = getattr(self, name)
            if not least.get(name, 0) <= value <= _MOST:
                raise ModelFormatError(
                    f"{name} is {value}: expected {least.get(name, 0)} to {_MOST}"
                )
        if self.windowed_head_dim % 2:
            raise ModelFormatError(
                f"windowed_head_dim is {self.windowed_head_dim}: expected an even number"
            )
