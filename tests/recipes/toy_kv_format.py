"""A format of K and V in three files: signed bytes, and a float scale a row behind the values.

It is for counting files, not for use: one chain a value, no kernels for several rows.
"""

from __future__ import annotations

from tests.recipes.lines import Lines

_TRAITS = """
template <> struct KV<KV_TOY8> : KV<KV_F32> {
  // Values `stride` apart; the scale behind those of all 16 tokens.
  static void write(uint8_t* unit, uint8_t* row, int stride, int32_t slot, int32_t dim,
                    const float* x) {
    uint32_t bits, largest = 0;
    for (int d = 0; d < dim; d++) {
      __builtin_memcpy(&bits, x + d, 4);
      bits &= 0x7fffffffu;   // as integers NaN is over infinity, over the rest
      if (bits > largest) largest = bits;
    }
    float top;
    __builtin_memcpy(&top, &largest, 4);
    const float scale = top / 127.0f, inverse = top > 1e-30f && top < 1e38f ? 127.0f / top : 0.0f;
    for (int d = 0; d < dim; d += 16) {
      int32_t whole[16];
      store_i(whole, to_int(mul(load_f(x + d), set1_f(inverse))));
      for (int i = 0; i < 16; i++) row[(d + i) * stride] = (uint8_t)whole[i];
    }
    __builtin_memcpy(unit + 16 * dim + slot * 4, &scale, 4);
  }
  static void write_k(uint8_t* unit, int32_t slot, int32_t dim, const float* k) {
    write(unit, unit + slot, 16, slot, dim, k);
  }
  static void write_v(uint8_t* unit, int32_t slot, int32_t dim, const float* v) {
    write(unit, unit + slot * dim, 1, slot, dim, v);
  }
  template <int M, bool kAhead>
  static void scores(Addresses k, Addresses, int s0, int s1, const void* q, int k_dim,
                     float* score) {
    for (int s = s0; s < s1; s++)
      for (int m = 0; m < M; m++) {
        f32x16 acc = zero_f();
        for (int d = 0; d < k_dim; d++)
          acc = fma(to_float(load_s8(k[s] + d * 16)), set1_f(((const float*)q)[d * M + m]), acc);
        store_f(score + m * kTile + s * 16, mul(acc, load_f((const float*)(k[s] + 16 * k_dim))));
      }
  }
  template <int M, bool kAhead> static constexpr ValuesFn values = nullptr;  // not called
  static void add_values(const Pass* pass, Tile* tile, const TileAddresses* at, int, int,
                         int v_dim) {
    for (int i = 0; i < pass->rows; i++)
      for (int d = 0; d < v_dim; d += 16) {
        float* o = pass->o + i * v_dim + d;
        f32x16 acc = mul(load_f(o), set1_f(tile->alpha[i]));
        for (int t = tile->lo[i]; t < tile->hi[i]; t++) {
          const uint8_t* unit = at->v[t / 16];
          const float* scales = (const float*)(unit + 16 * v_dim);
          const float p = ((const float*)tile->p[i])[t] * scales[t % 16];
          acc = fma(to_float(load_s8(unit + t % 16 * v_dim + d)), set1_f(p), acc);
        }
        store_f(o, acc);
      }
  }
};

"""

_TWIN_IMPORTS = """
import numpy as np

from tests.kernels.exact import F32, Floats
from tests.kernels.kv_floats import UNIT, Bools, Bytes, Offsets
"""

_TWIN = """class Toy8Twin(F32Twin):
    def k_bytes(self, slot: int, dim: int) -> Offsets:
        return np.append(np.arange(dim) * UNIT + slot, UNIT * dim + slot * 4 + np.arange(4))

    def v_bytes(self, slot: int, dim: int) -> Offsets:
        return np.append(slot * dim + np.arange(dim), UNIT * dim + slot * 4 + np.arange(4))

    def encode(self, rows: Floats) -> Bytes:
        top = (np.ascontiguousarray(rows, F32).view(np.uint32) & 0x7FFFFFFF).max(-1, keepdims=True)
        top = top.view(F32)
        with np.errstate(all="ignore"):
            inverse = np.where((top > F32(1e-30)) & (top < F32(1e38)), F32(127) / top, F32(0))
            q = np.nan_to_num(np.rint(rows * inverse), nan=0.0).astype(np.int8)
        return np.append(q.view(np.uint8), (top / F32(127)).view(np.uint8), axis=-1)

    def parts(self, raw: Bytes) -> tuple[Floats, Floats]:
        scales = np.ascontiguousarray(raw[..., -4:]).view(F32)
        return raw[..., :-4].view(np.int8).astype(F32), scales

    def decode(self, raw: Bytes) -> Floats:
        q, scale = self.parts(raw)
        return q * scale

    def rounded(self, rows: Floats) -> Floats:
        return rows

    def scores(self, q: Floats, keys: Bytes, fused: bool) -> Floats:
        k, scale = self.parts(keys)
        return self.dots(q, k, fused) * scale[:, 0]

    def add_values(self, o: Floats, p: Floats, values: Bytes, sees: Bools, fused: bool) -> Floats:
        v, scale = self.parts(values)
        return self.weighed(o, p * scale[:, 0], v, sees, fused)


"""

KV_FORMAT = [
    # the row
    Lines("csrc/kv_formats.h", "kKVFormats };", "KV_TOY8, ", before=True),
    Lines("csrc/kv_formats.h", "};\nstatic_assert(sizeof kKVFormatTable",
          '    {"toy8", 8, 4, 0, "[D][16 tok]", "[tok][D]"},\n', before=True),
    # its stores and its two products
    Lines("csrc/kernels/kv_traits.h", '#include "kernels/attention_chain.h"\n',
          '#include "kernels/simd_bytes.h"\n'),
    Lines("csrc/kernels/kv_traits.h", "}  // namespace octavo::OCTAVO_ISA", _TRAITS, before=True),
    # its twin
    Lines("tests/kernels/kv_twin.py", "from types import MappingProxyType\n", _TWIN_IMPORTS),
    Lines("tests/kernels/kv_twin.py", "KV_TWINS = ", _TWIN, before=True),
    Lines("tests/kernels/kv_twin.py", '"f32": F32Twin(), ', '"toy8": Toy8Twin(), '),
]  # fmt: skip
