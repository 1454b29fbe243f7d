"""The numerics id: one for levels that give the same bits, another when the bits change.

RECORDED holds digests of what the kernels give for fixed inputs, in the order of IDS. Where one
differs, bits have changed: add 1 to kKernelVersion in csrc/dispatch.h and record the new IDS and
their digests here (`python -m tests.kernels.test_numerics_id` prints them).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from octavo.kernels import native, numerics_id
from octavo.weights.ggml_type import GGMLType
from tests.kernels.exact import Floats
from tests.kernels.gguf_blocks import HALFS_AT, OWN_FORMAT
from tests.kernels.guard import guarded
from tests.kernels.levels import ISAS, every_isa
from tests.kernels.row_ops import row_op

POOL = native.ThreadPool(1)
FIRST, NEWER = list(OWN_FORMAT.items())[:8], list(OWN_FORMAT.items())[8:12]
CLASSES = {
    "base": "base", "avx2": "fma-bf16emulated", "avxvnni": "fma-bf16emulated",
    "avx512": "fma-bf16emulated", "avx512bf16": "fma-bf16hardware",
    "amx": "amx", "amx_plain": "amx",
}  # fmt: skip
IDS = [f"2/{name}/tile64/chunk256" for name in dict.fromkeys(CLASSES.values())]
RECORDED = {
    "integer weights": (
        "03bd534497d38a93", "9a2f423fd2625b32",
        "9a2f423fd2625b32", "9a2f423fd2625b32",
    ),
    "integer weights, rows of two bf16": (
        "d29ca79f4b419652", "64ac00805b25c8fd",
        "679be1e199247e01", "64ac00805b25c8fd",
    ),
    "weights of few bits or a table": (
        "088e9e237462f8ad", "d87be4b6296592c6",
        "4d505465971cd2ae", "d87be4b6296592c6",
    ),
    "bf16 weights": (
        "88f88b640bd4ed73", "88f88b640bd4ed73",
        "88f88b640bd4ed73", "59fd4b51a640bf7c",
    ),
    "float32 weights": (
        "f4c9b9c785b43a22", "2e676c59553a396c",
        "2e676c59553a396c", "2e676c59553a396c",
    ),
    "embedding": (
        "f770ad67be17b15c", "f770ad67be17b15c",
        "f770ad67be17b15c", "f770ad67be17b15c",
    ),
    "bf16 pages": (
        "dc6edda5a9fe7f18", "dc6edda5a9fe7f18",
        "dc6edda5a9fe7f18", "dc6edda5a9fe7f18",
    ),
    "float32 pages": (
        "4b0452c86403fe32", "4b0452c86403fe32",
        "4b0452c86403fe32", "4b0452c86403fe32",
    ),
    "attention over bf16": (
        "4f4a61dd6df0d663", "26958f74dbedbbbf",
        "26958f74dbedbbbf", "922232762cc4877b",
    ),
    "attention over float32": (
        "4933cba8960803e9", "1c37e52eec753249",
        "1c37e52eec753249", "1c37e52eec753249",
    ),
    "int8 pages": (
        "0b544277f499dedd", "0b544277f499dedd",
        "0b544277f499dedd", "0b544277f499dedd",
    ),
    "attention over int8": (
        "ffd3f34c7a5938e6", "0cdfb6d1aaff68a0",
        "0cdfb6d1aaff68a0", "0cdfb6d1aaff68a0",
    ),
    "int4 pages": (
        "ea8b3ec9416d2be0", "ea8b3ec9416d2be0",
        "ea8b3ec9416d2be0", "ea8b3ec9416d2be0",
    ),
    "attention over int4": (
        "aa51fc11b4395e2a", "02faefe15b99cd0b",
        "02faefe15b99cd0b", "02faefe15b99cd0b",
    ),
    "rows": (
        "ef6b3529560d7764", "7d763579b3f4f329",
        "7d763579b3f4f329", "7d763579b3f4f329",
    ),
    "layer norm": (
        "4d3b039ab6164876", "28796c6f68c5feaf",
        "28796c6f68c5feaf", "28796c6f68c5feaf",
    ),
    "activations": (
        "50d8b984c6c69f99", "89c3ee57c39154ac",
        "89c3ee57c39154ac", "89c3ee57c39154ac",
    ),
    "softcap": (
        "9fa9a40b3f09503e", "9732a3456458e6b7",
        "9732a3456458e6b7", "9732a3456458e6b7",
    ),
    "MXFP4 weights": (
        "8024609239fa238b", "5c607eec63dc02ad",
        "5c607eec63dc02ad", "5c607eec63dc02ad",
    ),
    "clamped gates": (
        "fd0e897d16fd6f02", "84cf68dc4deab011",
        "84cf68dc4deab011", "84cf68dc4deab011",
    ),
    "attention with slopes": (
        "326d9e487eb29420", "b1a2f55cc7d2d7d8",
        "b1a2f55cc7d2d7d8", "b1a2f55cc7d2d7d8",
    ),
    "attention with sink logits": (
        "cc4fd794bf822b4f", "17e2bfa0063209f7",
        "17e2bfa0063209f7", "17e2bfa0063209f7",
    ),
}  # fmt: skip


def words(count: int, seed: int) -> NDArray[np.uint32]:
    """Mixed bits from integer arithmetic alone: the same with every release of numpy."""
    x = np.arange(count, dtype=np.uint32) * np.uint32(2654435761) + np.uint32(seed * 40503)
    for _ in range(2):
        x = (x ^ (x >> np.uint32(15))) * np.uint32(2246822519)
    return x


def floats(seed: int, *shape: int) -> Floats:
    """Return values in [-1, 1), exact in 24 bits."""
    bits = words(int(np.prod(shape)), seed) >> np.uint32(8)
    return (bits.astype(np.float32) / np.float32(2**23) - np.float32(1)).reshape(shape)


def weight(type: GGMLType, rows: int, cols: int) -> NDArray[np.uint8]:
    if type is GGMLType.F32:
        return floats(3, rows * cols).view(np.uint8)
    if type is GGMLType.BF16:
        high = floats(4, rows * cols).view(np.uint16)[1::2]
        return np.ascontiguousarray(high).view(np.uint8)
    count = rows * cols // type.block_values
    raw = words(count * type.block_bytes, 5).astype(np.uint8).reshape(count, type.block_bytes)
    for i, at in enumerate(HALFS_AT.get(type, (0,))):
        raw[:, at : at + 2] = (floats(6 + i, count, 1) / 16).astype(np.float16).view(np.uint8)
    if type is GGMLType.MXFP4:
        raw[:, 0] = 118 + raw[:, 0] % 7
    return raw.reshape(-1)


def packed(type: GGMLType, fmt: str) -> native.PackedWeight:
    return native.pack_weight(POOL, weight(type, 40, 512), int(type), 40, 512, fmt)


def matmul(isa: str, type: GGMLType, fmt: str, rows: str | None = None) -> Floats:
    out = np.empty((7, 40), np.float32)
    bias = floats(2, 40)
    native.matmul(isa, packed(type, fmt), floats(1, 7, 512), out, bias=bias, rows=rows)
    return out


def embedding(isa: str) -> Floats:
    return expanded(isa, FIRST)


def expanded(isa: str, formats: Sequence[tuple[GGMLType, str]]) -> Floats:
    out = np.empty((len(formats), 512), np.float32)
    for row, own in zip(out, formats, strict=True):
        native.expand_row(isa, packed(*own), 21, row)
    return out


def newer(isa: str) -> Floats:
    by_rows = [matmul(isa, *own, rows) for own in NEWER for rows in (None, "ABF16X2")]
    return np.concatenate([np.stack(by_rows).reshape(-1), expanded(isa, NEWER).reshape(-1)])


def mxfp4(isa: str) -> Floats:
    own = GGMLType.MXFP4, OWN_FORMAT[GGMLType.MXFP4]
    return np.concatenate([matmul(isa, *own).reshape(-1), expanded(isa, [own]).reshape(-1)])


def attention(
    isa: str, kv: str, sinks: Floats | None = None, slopes: Floats | None = None,
    rounded: bool = False,
) -> tuple[NDArray[np.uint8], Floats]:  # fmt: skip
    """Pages of 300 tokens, and the attention of the last 20 over both chunks."""
    layout = native.KVLayout(1, 2, 64, 48, kv, kv, 32)
    pages = guarded(np.zeros(10 * layout.block_stride, np.uint8))
    table = np.arange(10, dtype=np.int32)
    k, v, q = floats(8, 300, 2, 64), floats(9, 300, 2, 48), floats(10, 20, 6, 64)
    native.write_kv(isa, pages, layout, table, np.arange(300, dtype=np.int32), 0, k, v)
    out = np.empty((20, 6, 48), np.float32)
    native.attention(
        isa, out, q, pages, layout, table, 0, 280, 0.7, slopes=slopes, rounded_slopes=rounded,
        sink_logits=sinks,
    )  # fmt: skip
    return pages, out


def rows(isa: str) -> Floats:
    norm = row_op(isa, "Norm", floats(12, 150), weight=floats(13, 150), eps=1e-5)
    silu = row_op(isa, "GatedActivation", floats(14, 150) * np.float32(9), y=floats(15, 150))
    rotated = floats(11, 3, 50)
    for pairs, style in ((20, 1), (25, 0)):
        angles = {"cos": floats(16, pairs), "sin": floats(17, pairs)}
        rotated = row_op(isa, "Rope", rotated, over=True, heads=3, rope_style=style, **angles)
    top, total, _, _ = native.summarize_tile(isa, floats(18, 1000), 0)
    return np.concatenate([norm, silu, rotated.reshape(-1), np.array([top, total], np.float32)])


def layer_norm(isa: str) -> Floats:
    weight, bias = floats(13, 150), floats(19, 150)
    return row_op(isa, "Norm", floats(12, 150), norm_kind=1, weight=weight, bias=bias, eps=1e-5)


def activations(isa: str) -> Floats:
    x = floats(20, 150) * np.float32(9)
    kinds = (native.ACTIVATIONS.index(name) for name in ("gelu", "gelu_tanh", "relu"))
    return np.stack([row_op(isa, "Activate", x, activation=kind) for kind in kinds])


def clamped_gates(isa: str) -> Floats:
    gate, up = (floats(seed, 150) * np.float32(9) for seed in (22, 23))
    kind = native.ACTIVATIONS.index("clamped_glu")
    return row_op(isa, "GatedActivation", gate, y=up, activation=kind)


def softcap(isa: str) -> Floats:
    logits = floats(21, 150) * np.float32(50)
    native.softcap(isa, logits, 30.0)
    return logits


PARTS: dict[str, Callable[[str], NDArray[np.generic]]] = {
    "integer weights": lambda isa: np.stack([matmul(isa, *own) for own in FIRST]),
    "integer weights, rows of two bf16": lambda isa: np.stack(
        [matmul(isa, *own, "ABF16X2") for own in FIRST]
    ),
    "weights of few bits or a table": newer,
    "bf16 weights": lambda isa: matmul(isa, GGMLType.BF16, "BF16"),
    "float32 weights": lambda isa: matmul(isa, GGMLType.F32, "F32"),
    "embedding": embedding,
    "bf16 pages": lambda isa: attention(isa, "bf16")[0],
    "float32 pages": lambda isa: attention(isa, "f32")[0],
    "attention over bf16": lambda isa: attention(isa, "bf16")[1],
    "attention over float32": lambda isa: attention(isa, "f32")[1],
    "int8 pages": lambda isa: attention(isa, "int8")[0],
    "attention over int8": lambda isa: attention(isa, "int8")[1],
    "int4 pages": lambda isa: attention(isa, "int4")[0],
    "attention over int4": lambda isa: attention(isa, "int4")[1],
    "rows": rows,
    "layer norm": layer_norm,
    "activations": activations,
    "softcap": softcap,
    "MXFP4 weights": mxfp4,
    "clamped gates": clamped_gates,
    "attention with slopes": lambda isa: np.stack(
        [attention(isa, "f32", None, floats(25, 6), rounded)[1] for rounded in (False, True)]
    ),
    "attention with sink logits": lambda isa: attention(isa, "f32", floats(24, 6))[1],
}


def digest(isa: str, part: str) -> str:
    return hashlib.sha256(PARTS[part](isa).tobytes()).hexdigest()[:16]


@every_isa
def test_an_id_names_version_class_tile_and_chunk(isa: str) -> None:
    assert numerics_id(isa) == f"{native.KERNEL_VERSION}/{CLASSES[isa]}/tile64/chunk256"


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match=r"isa: expected one of base, .*got avx1024"):
        numerics_id("avx1024")


@pytest.mark.parametrize("part", PARTS)
@every_isa
def test_bits_under_an_id_never_change(isa: str, part: str) -> None:
    recorded = RECORDED[part][IDS.index(numerics_id(isa))]
    assert digest(isa, part) == recorded, (
        f"{part} of {isa} have other bits than {numerics_id(isa)} has had: see this file's header"
    )


def test_classes_are_apart() -> None:
    """Otherwise the class in an id would keep apart what is equal."""
    assert RECORDED.keys() == PARTS.keys()
    by_class = set(zip(*RECORDED.values(), strict=True))
    assert len(by_class) == len(IDS) == len(set(CLASSES.values()))


if __name__ == "__main__":
    for level in ISAS:
        print(numerics_id(level), {part: digest(level, part) for part in PARTS})
