"""The KV formats in numpy, one object for each: what kv_formats.h and kv_traits.h say."""

from __future__ import annotations

from types import MappingProxyType

from tests.kernels.kv_bytes import Int8Twin
from tests.kernels.kv_floats import Bf16Twin, F32Twin, TiledBf16Twin
from tests.kernels.kv_nibbles import Int4Twin

KV_TWINS = MappingProxyType(
    {"f32": F32Twin(), "bf16": Bf16Twin(), "int8": Int8Twin(), "int4": Int4Twin()}
)
TILED_BF16 = TiledBf16Twin()
