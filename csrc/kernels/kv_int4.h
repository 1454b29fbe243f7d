// kv_int4.h: rows of K and V as nibbles, with a scale and a min for each 32 values, and
// KV<KV_INT4>.
//
// K and q are rotated first (rotate.h), V is not; q is kv_int8.h's. m = the least value and
// s = (the largest - the least) / 15, both to the nearest fp16 and at most 65504 either way; n = (x
// - m) * (1 / s) to the nearest, ties to even, within 0..15. A group with a NaN or an infinity has
// an infinite scale, m = 0 and n = 0: NaN in its values for whoever gives the token a weight above
// 0.
#pragma once
#include "kernels/attention_nibbles.h"
#include "kernels/kv_int8.h"

namespace octavo::OCTAVO_ISA {

struct NibbleRow {  // of one group
  uint16_t scale, min;
  uint8_t n[kNibbleGroup];  // 0 beyond its dims
};

// To nearest even; beyond the largest fp16 it is that. `x` is no NaN.
static uint16_t f16_of(float x) {
  const float size = __builtin_fabsf(x) < 65504.0f ? __builtin_fabsf(x) : 65504.0f;
  const uint32_t sign = __builtin_signbit(x) ? 0x8000 : 0;
  uint32_t bits;
  if (size < 0x1p-14f) {  // denormals: whole multiples of 2^-24, the step of floats from 0.5 on
    const float shifted = size + 0.5f;
    __builtin_memcpy(&bits, &shifted, 4);
    return (uint16_t)(sign | (bits - 0x3f000000u));
  }
  __builtin_memcpy(&bits, &size, 4);
  return (uint16_t)(sign | ((bits - (112u << 23) + 0xfff + (bits >> 13 & 1)) >> 13));
}

static NibbleRow to_nibbles(const float* x, int dims) {
  NibbleRow row = {};
  const f32x16 a = load_f(x), b = dims > 16 ? load_f(x + 16) : a;
  const i32x16 magnitude = set1_i(INT32_MAX);
  const f32x16 none = set1_f(kInfinity);
  const mask16 finite = and_m(lt(as_float(and_i(as_int(a), magnitude)), none),
                              lt(as_float(and_i(as_int(b), magnitude)), none));
  if (lane_bits(finite) != 0xffff) {
    row.scale = 0x7c00;
    return row;
  }
  const float top = reduce_max(max(a, b)), bottom = 0.0f - reduce_max(sub(zero_f(), min(a, b)));
  const uint16_t halves[16] = {f16_of((top - bottom) / 15.0f), f16_of(bottom)};
  row.scale = halves[0];
  row.min = halves[1];
  float kept[16];
  store_f(kept, load_f16(halves));
  const f32x16 inverse = set1_f(kept[0] > 0.0f ? 1.0f / kept[0] : 0.0f), m = set1_f(kept[1]);
  for (int d = 0; d < dims; d += 16) {
    const f32x16 steps = mul(sub(load_f(x + d), m), inverse);
    store_s8(row.n + d, to_int(min(max(steps, zero_f()), set1_f(15.0f))));
  }
  return row;
}

template <> struct KV<KV_INT4> {
  static constexpr int32_t kFormat = KV_INT4;

  static void write_k(uint8_t* unit, int32_t slot, int32_t dim, const float* k) {
    float rotated[kAttentionMaxDim];
    rotate(k, dim, rotated);
    for (int d = 0; d < dim; d += kNibbleGroup, unit += kNibbleGroupBytes) {
      const NibbleRow row = to_nibbles(rotated + d, least(dim - d, kNibbleGroup));
      write_scales(unit, slot, row);
      for (int i = 0; i < 16; i++) unit[i / 4 * 64 + slot * 4 + i % 4] = both_halves(row, i);
    }
  }
  static void write_v(uint8_t* unit, int32_t slot, int32_t dim, const float* v) {
    for (int d = 0; d < dim; d += kNibbleGroup, unit += kNibbleGroupBytes) {
      const NibbleRow row = to_nibbles(v + d, least(dim - d, kNibbleGroup));
      write_scales(unit, slot, row);
      for (int i = 0; i < 16; i++) unit[slot / 4 * 64 + i * 4 + slot % 4] = both_halves(row, i);
    }
  }

  static void pack_q(const float* q, int k_dim, int rows, int lane, void* pack) {
    int8_t bytes[kAttentionMaxDim];
    int32_t* words = (int32_t*)pack + lane;
    const float scale = pack_rotated(q, k_dim, rows, bytes, words);
    words += k_dim / 4 * rows;
    for (int d = 0; d < k_dim; d += kNibbleGroup, words += rows) {
      int32_t sum = 0;
      for (int i = d; i < least(d + kNibbleGroup, k_dim); i++) sum += bytes[i];
      const float of_group = (float)sum;
      __builtin_memcpy(words, &of_group, 4);
    }
    __builtin_memcpy(words, &scale, 4);
  }

  OCTAVO_INLINE void store_p(uint32_t* row, int s, f32x16 p) { store_f((float*)row + s * 16, p); }

  template <int M, bool kAhead> static constexpr ScoresFn scores = nibble_scores<M, kAhead>;
  template <int M, bool kAhead> static constexpr ValuesFn values = nibble_values<M, kAhead>;
  // Group by group: each has weights of its own.
  static void add_values(const Pass* pass, Tile* tile, const TileAddresses* at, int s0, int s1,
                         int v_dim) {
    NibbleWeights weights;
    const uint8_t *v[4], *ahead[4];
    for (int d = 0; d < v_dim; d += kNibbleGroup) {
      const int64_t group = d / kNibbleGroup * kNibbleGroupBytes;
      for (int s = s0; s < s1; s++) {
        v[s] = at->v[s] + group;
        ahead[s] = at->ahead ? at->next_v[s] + group : v[s];
      }
      for (int i = 0; i < pass->kernels->rows; i++)
        weigh_group(v, s0, s1, (const float*)tile->p[i], weights.rows + i, weights.mins + i);
      weights.dims = least(v_dim - d, kNibbleGroup);
      pass->kernels->values[at->ahead][kFormat](v, ahead, s0, s1, &weights, tile->alpha, v_dim,
                                                pass->o + d);
    }
  }

 private:
  static uint8_t both_halves(const NibbleRow& row, int i) {
    return (uint8_t)(row.n[i] | row.n[i + 16] << 4);
  }
  static void write_scales(uint8_t* group, int32_t slot, const NibbleRow& row) {
    __builtin_memcpy(group + kNibbleScales + slot * 2, &row.scale, 2);
    __builtin_memcpy(group + kNibbleMins + slot * 2, &row.min, 2);
  }
};

}  // namespace octavo::OCTAVO_ISA
