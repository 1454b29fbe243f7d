// kv_traits.h: what the bytes of each KV format are to the kernels (the table of formats:
// kv_formats.h).
//
// KV<format> has
// * write_k, write_v: a row of float32 (after RoPE) into its slot (0..15) of a unit. Another thread
//   may be writing a neighbouring slot: no byte of one is read or written.
// * pack_q: a row's q into its lane of a [step][rows] pack, in at most 4 bytes a value.
// * store_p: the weights of unit s of a tile into a row of Tile::p.
// * scores, values: the kernels of the two products for M rows, and add_values, the second with the
//   tile's edges, which units [s0, s1) hold. What a row does not see may be NaN. Those of Chain, or
//   the format's own.
#pragma once
#include "kernels/attention_chain.h"
#include "kernels/kv_int4.h"
#include "kernels/kv_int8.h"

namespace octavo::OCTAVO_ISA {

template <int32_t kFormat> struct KV;

template <> struct KV<KV_F32> : Chain<KV<KV_F32>> {
  static constexpr int32_t kFormat = KV_F32;

  static void write_k(uint8_t* unit, int32_t slot, int32_t dim, const float* k) {
    for (int d = 0; d < dim; d++) __builtin_memcpy(unit + d * 64 + slot * 4, k + d, 4);
  }
  static void write_v(uint8_t* unit, int32_t slot, int32_t dim, const float* v) {
    __builtin_memcpy(unit + (int64_t)slot * dim * 4, v, (size_t)dim * 4);
  }
  static void pack_q(const float* q, int k_dim, int rows, int lane, void* pack) {
    for (int d = 0; d < k_dim; d++) ((float*)pack)[d * rows + lane] = q[d];
  }
  OCTAVO_INLINE void store_p(uint32_t* row, int s, f32x16 p) { store_f((float*)row + s * 16, p); }

  using Element = float;
  using Vector = f32x16;
  static constexpr int kTokens = 1;
  OCTAVO_INLINE Vector load(const uint8_t* p) { return load_f((const float*)p); }
  OCTAVO_INLINE f32x16 step(f32x16 acc, Vector kv, Element e) { return fma(kv, set1_f(e), acc); }
  static constexpr int kTerms = 1;
  template <int> OCTAVO_INLINE f32x16 term(const uint8_t* p) { return load(p); }
  template <int> OCTAVO_INLINE float factor(const Element& e) { return e; }
  OCTAVO_INLINE Vector keep(Vector kv, bool, bool) { return kv; }
};

// To nearest even in integer arithmetic, the same bits at every level; NaN stays NaN.
OCTAVO_INLINE uint16_t bf16_of(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fc0;
  return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// A step of two bf16 values: where the level has bf16 dots one of these, else two fma on what the
// values are as floats, the second of each pair first, as dot_bf16 does it.
#if OCTAVO_BF16_DOTS
struct Bf16Steps {
  using Element = int32_t;
  using Vector = i32x16;
  OCTAVO_INLINE Vector load(const uint8_t* p) { return load_i(p); }
  OCTAVO_INLINE f32x16 step(f32x16 acc, Vector kv, Element e) {
    return dot_bf16(acc, kv, set1_i(e));
  }
  OCTAVO_INLINE Vector keep(Vector kv, bool low, bool high) {
    return and_i(kv, set1_i((int32_t)((low ? 0xffffu : 0u) | (high ? 0xffff0000u : 0u))));
  }
  OCTAVO_INLINE void store16(Element* out, f32x16 values) { store_bf16(out, values); }
  OCTAVO_INLINE void store_p(uint32_t* row, int s, f32x16 p) { store16((Element*)row + s * 8, p); }
};
#else
struct Bf16Steps {
  struct Element {
    float low, high;
  };
  struct Vector {
    f32x16 low, high;
  };
  OCTAVO_INLINE Vector load(const uint8_t* p) {
    const i32x16 pairs = load_i(p);
    return {as_float(shift_left<16>(pairs)), as_float(and_i(pairs, set1_i((int32_t)0xffff0000u)))};
  }
  OCTAVO_INLINE f32x16 step(f32x16 acc, Vector kv, Element e) {
    return fma(kv.low, set1_f(e.low), fma(kv.high, set1_f(e.high), acc));
  }
  static constexpr int kTerms = 2;
  template <int kTerm> OCTAVO_INLINE f32x16 term(const uint8_t* p) {
    const i32x16 pairs = load_i(p);  // by shifts alone: no register for a mask
    return as_float(shift_left<16>(kTerm == 0 ? shift_right_u<16>(pairs) : pairs));
  }
  template <int kTerm> OCTAVO_INLINE float factor(const Element& e) {
    return kTerm == 0 ? e.high : e.low;
  }
  OCTAVO_INLINE Vector keep(Vector kv, bool low, bool high) {
    return {low ? kv.low : zero_f(), high ? kv.high : zero_f()};
  }
  OCTAVO_INLINE void store16(Element* out, f32x16 values) {
    store_f(&out->low, as_float(shift_left<16>(to_bf16_pair(values, zero_f()))));
  }
  // The same, but a NaN may become a number: the sum of the weights has it, and so the row.
  OCTAVO_INLINE void store_p(uint32_t* row, int s, f32x16 p) {
    const i32x16 bits = as_int(p), odd = and_i(shift_right_u<16>(bits), set1_i(1));
    const i32x16 rounded = add_i(bits, add_i(odd, set1_i(0x7fff)));
    store_f((float*)row + s * 16, as_float(and_i(rounded, set1_i((int32_t)0xffff0000u))));
  }
};
#endif

template <> struct KV<KV_BF16> : Bf16Steps, Chain<KV<KV_BF16>> {
  static constexpr int32_t kFormat = KV_BF16;
  static constexpr int kTokens = 2;

  static void write_k(uint8_t* unit, int32_t slot, int32_t dim, const float* k) {
    uint16_t rounded[kAttentionMaxDim];
    for (int d = 0; d < dim; d++) rounded[d] = bf16_of(k[d]);
    for (int d = 0; d < dim; d += 2) __builtin_memcpy(unit + d / 2 * 64 + slot * 4, rounded + d, 4);
  }
  // Two neighbouring tokens share 32-bit words here: 16-bit stores only.
  static void write_v(uint8_t* unit, int32_t slot, int32_t dim, const float* v) {
    uint16_t rounded[kAttentionMaxDim];
    for (int d = 0; d < dim; d++) rounded[d] = bf16_of(v[d]);
    uint8_t* out = unit + (int64_t)(slot / 2) * dim * 4 + slot % 2 * 2;
    for (int d = 0; d < dim; d++) __builtin_memcpy(out + d * 4, rounded + d, 2);
  }
  static void pack_q(const float* q, int k_dim, int rows, int lane, void* pack) {
    Element steps[kAttentionMaxDim / 2];
    for (int d = 0; d < k_dim; d += 16) store16(steps + d / 2, load_f(q + d));
    for (int i = 0; i < k_dim / 2; i++) ((Element*)pack)[i * rows + lane] = steps[i];
  }
};

}  // namespace octavo::OCTAVO_ISA
