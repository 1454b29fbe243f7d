// attention_digits.h: the weights of a tile as two signed bytes each, W = 256 * high + low.
//
// attention_dots.h says what W is. Four neighbouring tokens are a word, as the dots take them; the
// word of quad j (0..3) of unit s (0..3) is the one at 4 * j + s: so it comes out of packing
// vectors of 16 lanes without a permutation.
#pragma once
#include "kernels/attention_tile.h"

namespace octavo::OCTAVO_ISA {

constexpr float kMostDigits = 32512.0f;  // 127 * 256: high is at most 127
constexpr float kLeastWeight = 1e-34f;   // kMostDigits / max(w) is finite from here on; else W = 0

// A row of Tile::p once its weights are digits.
struct alignas(64) Digits {
  int8_t high[kTile], low[kTile];
  int32_t bias;  // -128 times the sum of W, where V's bytes have 128 added to them
  float scale;
  uint8_t unused[kTile * 4 - 2 * kTile - 8];
};
static_assert(sizeof(Digits) == kTile * 4, "a row of Tile::p");

#if OCTAVO_LEVEL >= OCTAVO_LEVEL_avx512
OCTAVO_INLINE void store_digits(const i32x16 (&whole)[4], Digits* out) {
  const i32x16 a = _mm512_packs_epi32(whole[0], whole[1]);
  const i32x16 b = _mm512_packs_epi32(whole[2], whole[3]);
  const i32x16 half = _mm512_set1_epi16(128);
  const i32x16 high_a = _mm512_srai_epi16(_mm512_add_epi16(a, half), 8);
  const i32x16 high_b = _mm512_srai_epi16(_mm512_add_epi16(b, half), 8);
  const i32x16 low_a = _mm512_sub_epi16(a, _mm512_slli_epi16(high_a, 8));
  const i32x16 low_b = _mm512_sub_epi16(b, _mm512_slli_epi16(high_b, 8));
  store_i(out->high, _mm512_packs_epi16(high_a, high_b));
  store_i(out->low, _mm512_packs_epi16(low_a, low_b));
}
#elif OCTAVO_LEVEL >= OCTAVO_LEVEL_avx2
OCTAVO_INLINE void store_half(__m256i a, __m256i b, __m256i c, __m256i d, int8_t* high,
                              int8_t* low) {
  const __m256i ab = _mm256_packs_epi32(a, b), cd = _mm256_packs_epi32(c, d);
  const __m256i half = _mm256_set1_epi16(128);
  const __m256i high_ab = _mm256_srai_epi16(_mm256_add_epi16(ab, half), 8);
  const __m256i high_cd = _mm256_srai_epi16(_mm256_add_epi16(cd, half), 8);
  const __m256i low_ab = _mm256_sub_epi16(ab, _mm256_slli_epi16(high_ab, 8));
  const __m256i low_cd = _mm256_sub_epi16(cd, _mm256_slli_epi16(high_cd, 8));
  _mm256_storeu_si256((__m256i*)high, _mm256_packs_epi16(high_ab, high_cd));
  _mm256_storeu_si256((__m256i*)low, _mm256_packs_epi16(low_ab, low_cd));
}
OCTAVO_INLINE void store_digits(const i32x16 (&whole)[4], Digits* out) {
  store_half(whole[0].lo, whole[1].lo, whole[2].lo, whole[3].lo, out->high, out->low);
  store_half(whole[0].hi, whole[1].hi, whole[2].hi, whole[3].hi, out->high + 32, out->low + 32);
}
#else
OCTAVO_INLINE void store_digits(const i32x16 (&whole)[4], Digits* out) {
  for (int s = 0; s < 4; s++) {
    int32_t lanes[16];
    store_i(lanes, whole[s]);
    for (int t = 0; t < 16; t++) {
      const int at = (t / 4 * 4 + s) * 4 + t % 4, high = (lanes[t] + 128) >> 8;
      out->high[at] = (int8_t)high;
      out->low[at] = (int8_t)(lanes[t] - high * 256);
    }
  }
}
#endif

// What the weights of int8's V are stored as.
#if OCTAVO_LEVEL == OCTAVO_LEVEL_avx2
// The weights of a tile as 16-bit W: of tokens 0 and 2, then 1 and 3, of quad j (0..3) of unit s.
constexpr int pairs_at(int s, int j) { return (j / 2 * 2 + s / 2) * 8 + j % 2 * 4 + s % 2 * 2; }

OCTAVO_INLINE void store_weights(const i32x16 (&whole)[4], Digits* out) {
  const __m256i order = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
#pragma GCC unroll 2
  for (int s = 0; s < 4; s += 2) {
    const __m256i lo = _mm256_packs_epi32(whole[s].lo, whole[s + 1].lo),
                  hi = _mm256_packs_epi32(whole[s].hi, whole[s + 1].hi);
    _mm256_store_si256((__m256i*)out->high + s / 2, _mm256_shuffle_epi8(lo, order));
    _mm256_store_si256((__m256i*)out->high + 2 + s / 2, _mm256_shuffle_epi8(hi, order));
  }
}
#else
OCTAVO_INLINE void store_weights(const i32x16 (&whole)[4], Digits* out) {
  store_digits(whole, out);
}
#endif

// The weights w of a tile, the largest of which is amax, as digits; returns 16 sums of W. An
// infinite weight, which is that of a NaN in V, makes all digits 0 and their scale NaN: it is no
// whole number, nor is a sum with it.
template <void (*kStore)(const i32x16 (&)[4], Digits*)>
OCTAVO_INLINE i32x16 make_digits(const f32x16 (&w)[4], float amax, Digits* digits) {
  const bool finite = amax < __builtin_inff();
  const f32x16 inverse = set1_f(amax < kLeastWeight ? 0.0f : kMostDigits / amax);
  i32x16 whole[4], sum = zero_i();
#pragma GCC unroll 4
  for (int s = 0; s < 4; s++) {
    whole[s] = finite ? to_int(mul(w[s], inverse)) : zero_i();
    sum = add_i(sum, whole[s]);
  }
  kStore(whole, digits);
  digits->scale = finite ? amax / kMostDigits : __builtin_nanf("");
  return sum;
}

// The weights of the units [s0, s1) of a tile, floats in a row of Tile::p, become digits there;
// those of other units are 0. A token that the row does not see has p = 0; its scale may be
// anything, and where their product is NaN it counts as 0.
OCTAVO_INLINE void to_digits(Addresses v, int s0, int s1, int v_dim, uint32_t* row) {
  f32x16 w[4], top = zero_f();
#pragma GCC unroll 4
  for (int s = 0; s < 4; s++) {
    w[s] = zero_f();
    if (s < s0 || s >= s1) continue;
    const f32x16 p = load_f((const float*)row + s * 16);
    w[s] = max(mul(p, load_f((const float*)(v[s] + (int64_t)16 * v_dim))), zero_f());
    top = max(w[s], top);
  }
  auto* digits = (Digits*)row;
  const i32x16 sum = make_digits<store_weights>(w, reduce_max(top), digits);
  digits->bias = -128 * (int32_t)reduce_add(to_float(sum));  // exact: at most 64 * 32512
}

}  // namespace octavo::OCTAVO_ISA
