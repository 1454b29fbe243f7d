// kv_int8.h: rows of K, of V and of q as signed bytes with one scale, and KV<KV_INT8>.
//
// K and q are rotated first (rotate.h), V is not.
// scale = amax / 127 and q = x * (127 / amax), to the nearest, ties to even. A row whose amax is
// below 1e-30 is 0 with scale 0. One that holds a NaN or an infinity is 0 with an infinite scale:
// NaN in every row that sees it, but V's in those only whose weight of it is above 0.
#pragma once
#include "kernels/attention_dots.h"
#include "kernels/attention_signed_dots.h"
#include "kernels/rotate.h"
#include "kernels/simd_bytes.h"

namespace octavo::OCTAVO_ISA {

constexpr float kInfinity = __builtin_inff();
constexpr float kLeastAmax = 1e-30f;  // 127 / amax is finite from here on

struct ByteScale {
  float scale, inverse;  // x ~ q * scale, q ~ x * inverse
};
static ByteScale byte_scale(const float* x, int dim) {
  f32x16 top = zero_f();
  mask16 finite = first_lanes(16);
  for (int d = 0; d < dim; d += 16) {
    const f32x16 size = as_float(and_i(as_int(load_f(x + d)), set1_i(INT32_MAX)));
    finite = and_m(finite, lt(size, set1_f(kInfinity)));
    top = max(size, top);
  }
  if (lane_bits(finite) != 0xffff) return {kInfinity, 0.0f};
  const float amax = reduce_max(top);
  if (amax < kLeastAmax) return {0.0f, 0.0f};
  return {amax / 127.0f, 127.0f / amax};
}

// The bytes of q; an infinity or NaN times an inverse of 0 is one of the two values whose lowest
// byte is 0.
static void to_bytes(const float* x, int dim, float inverse, uint8_t* out) {
  for (int d = 0; d < dim; d += 16) store_s8(out + d, to_int(mul(load_f(x + d), set1_f(inverse))));
}

// A row of q, rotated, as whole numbers: four to a word of its lane. Returns their scale.
static float pack_rotated(const float* q, int k_dim, int rows, int8_t* bytes, int32_t* words) {
  float rotated[kAttentionMaxDim];
  rotate(q, k_dim, rotated);
  const ByteScale of = byte_scale(rotated, k_dim);
  to_bytes(rotated, k_dim, of.inverse, (uint8_t*)bytes);
  for (int d = 0; d < k_dim; d += 4) __builtin_memcpy(words + d / 4 * rows, bytes + d, 4);
  return of.scale;
}

template <int32_t kFormat> struct KV;

template <> struct KV<KV_INT8> {
  static constexpr int32_t kFormat = KV_INT8;

  static void write_k(uint8_t* unit, int32_t slot, int32_t dim, const float* k) {
    float rotated[kAttentionMaxDim];
    uint8_t bytes[kAttentionMaxDim];
    rotate(k, dim, rotated);
    write_scale(unit, slot, dim, biased_bytes(rotated, dim, bytes));
    for (int d = 0; d < dim; d += 4) __builtin_memcpy(unit + d * 16 + slot * 4, bytes + d, 4);
  }
  // Four neighbouring tokens share 32-bit words here: stores of a byte only.
  static void write_v(uint8_t* unit, int32_t slot, int32_t dim, const float* v) {
    uint8_t bytes[kAttentionMaxDim];
    write_scale(unit, slot, dim, biased_bytes(v, dim, bytes));
    uint8_t* out = unit + (int64_t)(slot / 4) * dim * 4 + slot % 4;
    for (int d = 0; d < dim; d++) out[d * 4] = bytes[d];
  }

  static void pack_q(const float* q, int k_dim, int rows, int lane, void* pack) {
    int8_t bytes[kAttentionMaxDim];
    int32_t* words = (int32_t*)pack + lane;
    const float scale = pack_rotated(q, k_dim, rows, bytes, words);
    int32_t sum = 0;
    for (int d = 0; d < k_dim; d++) sum += bytes[d];
    words[k_dim / 4 * rows] = -128 * sum;
    __builtin_memcpy(words + (k_dim / 4 + 1) * rows, &scale, 4);
  }

  OCTAVO_INLINE void store_p(uint32_t* row, int s, f32x16 p) { store_f((float*)row + s * 16, p); }

#if OCTAVO_LEVEL == OCTAVO_LEVEL_avx2
  template <int M, bool kAhead> static constexpr ScoresFn scores = signed_scores<M, kAhead>;
  template <int M, bool kAhead> static constexpr ValuesFn values = signed_values<M, kAhead>;
#else
  template <int M, bool kAhead> static constexpr ScoresFn scores = dot_scores<M, kAhead>;
  template <int M, bool kAhead> static constexpr ValuesFn values = dot_values<M, kAhead>;
#endif
  // What a row does not see has weight 0, and so digits of 0: a tile has no edges here.
  static void add_values(const Pass* pass, Tile* tile, const TileAddresses* at, int s0, int s1,
                         int v_dim) {
    for (int i = 0; i < pass->kernels->rows; i++) to_digits(at->v, s0, s1, v_dim, tile->p[i]);
    pass->kernels->values[at->ahead][kFormat](at->v, at->next_v, s0, s1, tile->p, tile->alpha,
                                              v_dim, pass->o);
  }

 private:
  static float biased_bytes(const float* x, int dim, uint8_t* out) {
    const ByteScale of = byte_scale(x, dim);
    to_bytes(x, dim, of.inverse, out);
    for (int d = 0; d < dim; d++) out[d] = (uint8_t)(out[d] + 128);
    return of.scale;
  }
  static void write_scale(uint8_t* unit, int32_t slot, int32_t dim, float scale) {
    __builtin_memcpy(unit + kKVUnit * dim + slot * 4, &scale, 4);
  }
};

}  // namespace octavo::OCTAVO_ISA
