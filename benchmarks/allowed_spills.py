"""Spills that the micro-kernels may have, and why they stay. Knows no object code."""

from __future__ import annotations

from dataclasses import dataclass

COMPILER = r"^GCC: .* 12\."  # whose spills these are; another's registers fall otherwise


@dataclass(frozen=True, slots=True)
class Allowed:
    level: str  # a pattern, as of file names
    source: str
    function: str  # a pattern; the first number of a matmul's is its WeightFormat
    most: int  # spills in the loops of one function
    why: str


_SIXTEEN = "16 registers for twice as many sums, beside weights of several parts"
_BF16X2 = "masks and offsets beside two chains a sum: a few among hundreds of fma, not timed alone"
_EARLY = (
    "what the second half or the min needs is loaded early; held back by a barrier nothing spills, "
    "and 6 rows fall from 32 to 28 % of the dot peak (W2K), from 49.5 to 46.4 (W4K)"
)
_SIX_ROWS = (
    "24 sums beside 4 vectors in halves; 2 vectors at a time spill nothing, and 6 rows at 2,048 "
    "tokens fall from 55.6 to 52.8 % of the fma peak"
)
_DOTS = (
    "sums of whole numbers beside V, both in halves; outside the loop over tokens where there are "
    "32 registers"
)

ALLOWED: tuple[Allowed, ...] = (
    Allowed("avx2", "matmul_integer.cpp", "tile<*>", 87, _SIXTEEN),
    Allowed("avx2", "matmul_unpacked.cpp", "add_tile<*>", 32, _SIXTEEN),
    Allowed("avx2", "matmul_bf16x2.cpp", "tile<*>", 262, _SIXTEEN),
    Allowed("avxvnni", "matmul_integer.cpp", "tile<*>", 55, _SIXTEEN),
    Allowed("avxvnni", "matmul_bf16x2.cpp", "tile<*>", 262, _SIXTEEN),
    Allowed("avx512*", "matmul_integer.cpp", "tile<5, 2, 6, *>", 6, _EARLY),
    Allowed("avx512*", "matmul_integer.cpp", "tile<6, 2, 6, *>", 8, _EARLY),
    Allowed("avx512*", "matmul_integer.cpp", "tile<7, 2, [56], *>", 34, _EARLY),
    Allowed("avx512*", "matmul_integer.cpp", "tile<8, 2, [456], *>", 48, _EARLY),
    Allowed("avx512*", "matmul_integer.cpp", "tile<9, 2, [56], *>", 27, _EARLY),
    Allowed("avx512", "matmul_bf16x2.cpp", "tile<*, [3456]>", 18, _BF16X2),
    Allowed("avx512bf16", "matmul_bf16x2.cpp", "tile<*, 5>", 11, _BF16X2),
    Allowed("avx512", "attention.cpp", "tile_*<KV<1>, 6, *>", 12, _SIX_ROWS),
    Allowed("avxvnni", "attention.cpp", "dot_*", 16, _DOTS),
    Allowed("avx512*", "attention.cpp", "dot_values<*>", 34, _DOTS),
    Allowed("avx2", "attention.cpp", "nibble_*", 75, _DOTS),
    Allowed("avxvnni", "attention.cpp", "nibble_*", 65, _DOTS),
)
