// simd_avx512.h: the words of simd.h on AVX-512 (F, BW, DQ, VL, VNNI); dot_bf16 in hardware at
// level avx512bf16, store_bf16 at amx too.
#pragma once
#include <immintrin.h>

namespace octavo::OCTAVO_ISA {

using f32x16 = __m512;
using i32x16 = __m512i;
using mask16 = __mmask16;

OCTAVO_INLINE f32x16 zero_f() { return _mm512_setzero_ps(); }
OCTAVO_INLINE f32x16 set1_f(float v) { return _mm512_set1_ps(v); }
OCTAVO_INLINE f32x16 load_f(const float* p) { return _mm512_loadu_ps(p); }
OCTAVO_INLINE void store_f(float* p, f32x16 v) { _mm512_storeu_ps(p, v); }
OCTAVO_INLINE f32x16 load_f_mask(const float* p, mask16 m) { return _mm512_maskz_loadu_ps(m, p); }
OCTAVO_INLINE void store_f_mask(float* p, mask16 m, f32x16 v) { _mm512_mask_storeu_ps(p, m, v); }
OCTAVO_INLINE f32x16 add(f32x16 a, f32x16 b) { return _mm512_add_ps(a, b); }
OCTAVO_INLINE f32x16 sub(f32x16 a, f32x16 b) { return _mm512_sub_ps(a, b); }
OCTAVO_INLINE f32x16 mul(f32x16 a, f32x16 b) { return _mm512_mul_ps(a, b); }
OCTAVO_INLINE f32x16 div(f32x16 a, f32x16 b) { return _mm512_div_ps(a, b); }
OCTAVO_INLINE f32x16 max(f32x16 a, f32x16 b) { return _mm512_max_ps(a, b); }
OCTAVO_INLINE f32x16 min(f32x16 a, f32x16 b) { return _mm512_min_ps(a, b); }
OCTAVO_INLINE f32x16 fma(f32x16 a, f32x16 b, f32x16 c) { return _mm512_fmadd_ps(a, b, c); }
OCTAVO_INLINE f32x16 select(mask16 m, f32x16 a, f32x16 b) { return _mm512_mask_blend_ps(m, b, a); }
OCTAVO_INLINE f32x16 round_even(f32x16 a) {
  return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
OCTAVO_INLINE f32x16 scale2(f32x16 p, f32x16 n) { return _mm512_scalef_ps(p, n); }
OCTAVO_INLINE f32x16 scale2_from(f32x16 low, f32x16 x, f32x16 p, f32x16 n) {
  return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, low, _CMP_NLT_UQ), p, n);
}

OCTAVO_INLINE i32x16 zero_i() { return _mm512_setzero_si512(); }
OCTAVO_INLINE i32x16 set1_i(int32_t v) { return _mm512_set1_epi32(v); }
OCTAVO_INLINE i32x16 load_i(const void* p) { return _mm512_loadu_si512(p); }
OCTAVO_INLINE void store_i(void* p, i32x16 v) { _mm512_storeu_si512(p, v); }
OCTAVO_INLINE i32x16 add_i(i32x16 a, i32x16 b) { return _mm512_add_epi32(a, b); }
OCTAVO_INLINE i32x16 sub_i(i32x16 a, i32x16 b) { return _mm512_sub_epi32(a, b); }
OCTAVO_INLINE i32x16 and_i(i32x16 a, i32x16 b) { return _mm512_and_si512(a, b); }
OCTAVO_INLINE i32x16 or_i(i32x16 a, i32x16 b) { return _mm512_or_si512(a, b); }
template <int N> OCTAVO_INLINE i32x16 shift_left(i32x16 a) { return _mm512_slli_epi32(a, N); }
template <int N> OCTAVO_INLINE i32x16 shift_right_u(i32x16 a) { return _mm512_srli_epi32(a, N); }
template <int N> OCTAVO_INLINE i32x16 shift_right_s(i32x16 a) { return _mm512_srai_epi32(a, N); }
template <int N> OCTAVO_INLINE i32x16 shift_right16(i32x16 a) { return _mm512_srli_epi16(a, N); }
OCTAVO_INLINE f32x16 to_float(i32x16 a) { return _mm512_cvtepi32_ps(a); }
OCTAVO_INLINE i32x16 to_int(f32x16 a) { return _mm512_cvtps_epi32(a); }
OCTAVO_INLINE f32x16 as_float(i32x16 a) { return _mm512_castsi512_ps(a); }
OCTAVO_INLINE i32x16 as_int(f32x16 a) { return _mm512_castps_si512(a); }

OCTAVO_INLINE i32x16 dot_u8s8(i32x16 acc, i32x16 w, i32x16 a) {
  return _mm512_dpbusd_epi32(acc, w, a);
}
OCTAVO_INLINE i32x16 dot_u7s8(i32x16 acc, i32x16 w, i32x16 a) {
  return _mm512_dpbusd_epi32(acc, w, a);
}

OCTAVO_INLINE f32x16 load_f16(const void* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
}
OCTAVO_INLINE f32x16 load_bf16(const void* p) {
  return as_float(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16));
}

#if OCTAVO_BF16_DOTS
OCTAVO_INLINE f32x16 dot_bf16(f32x16 acc, i32x16 a, i32x16 b) {
  return _mm512_dpbf16_ps(acc, (__m512bh)a, (__m512bh)b);
}
#else
OCTAVO_INLINE f32x16 dot_bf16(f32x16 acc, i32x16 a, i32x16 b) {
  const i32x16 high = set1_i((int32_t)0xffff0000u);
  acc = fma(as_float(and_i(a, high)), as_float(and_i(b, high)), acc);
  return fma(as_float(shift_left<16>(a)), as_float(shift_left<16>(b)), acc);
}
#endif

// Rounded in integer arithmetic at every level: vcvtne2ps2bf16 flushes denormals, which would make
// a class of its own.
OCTAVO_INLINE i32x16 to_bf16_bits(f32x16 a) {
  const i32x16 bits = as_int(a);
  const i32x16 odd = and_i(shift_right_u<16>(bits), set1_i(1));
  const i32x16 rounded = shift_right_u<16>(add_i(bits, add_i(odd, set1_i(0x7fff))));
  const mask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
  return _mm512_mask_blend_epi32(nan, rounded, set1_i(0x7fc0));
}
OCTAVO_INLINE i32x16 to_bf16_pair(f32x16 lo, f32x16 hi) {
  return or_i(to_bf16_bits(lo), shift_left<16>(to_bf16_bits(hi)));
}

#if OCTAVO_BF16_STORES
OCTAVO_INLINE void store_bf16(void* p, f32x16 v) {
  _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh(v));
}
#else
OCTAVO_INLINE void store_bf16(void* p, f32x16 v) {
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16(to_bf16_bits(v)));
}
#endif

OCTAVO_INLINE mask16 first_lanes(int n) {
  return n >= 16 ? (mask16)0xffff : n <= 0 ? (mask16)0 : (mask16)((1u << n) - 1);
}
OCTAVO_INLINE mask16 lt(f32x16 a, f32x16 b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
OCTAVO_INLINE mask16 is_nan(f32x16 a) { return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q); }
OCTAVO_INLINE mask16 and_m(mask16 a, mask16 b) { return (mask16)(a & b); }
OCTAVO_INLINE uint32_t lane_bits(mask16 m) { return m; }
OCTAVO_INLINE mask16 lanes_of(uint32_t bits) { return (mask16)bits; }
OCTAVO_INLINE i32x16 mask_byte_add16(i32x16 a, uint64_t m) {
  return _mm512_mask_add_epi8(a, (__mmask64)m, a, _mm512_set1_epi8(16));
}

OCTAVO_INLINE i32x16 look_up(const uint8_t* table, i32x16 index) {
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i*)table)), index);
}

template <int K> OCTAVO_INLINE f32x16 swap_lanes(f32x16 a) {
  if constexpr (K < 4) return _mm512_permute_ps(a, K == 1 ? 0xb1 : 0x4e);
  else return _mm512_shuffle_f32x4(a, a, K == 4 ? 0xb1 : 0x4e);
}
OCTAVO_INLINE f32x16 twice_each(const float* p) {
  const __m512i pick = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
  return _mm512_permutexvar_ps(pick, _mm512_castps256_ps512(_mm256_loadu_ps(p)));
}

// Lane i is what joins the lanes of part[i], of 8 rows or more. Rows change places with lanes,
// halves of vectors first, and are half as many after each step.
template <class Join>
OCTAVO_INLINE f32x16 join_lanes(const float (*part)[16], int rows, Join join) {
  f32x16 a[8], b[4], c[2];
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) {
    const f32x16 x = load_f(part[i]), y = load_f(part[i + 8 < rows ? i + 8 : rows - 1]);
    a[i] = join(_mm512_shuffle_f32x4(x, y, 0x44), _mm512_shuffle_f32x4(x, y, 0xee));
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++)
    b[i] = join(_mm512_shuffle_f32x4(a[i], a[i + 4], 0x88),
                _mm512_shuffle_f32x4(a[i], a[i + 4], 0xdd));
#pragma GCC unroll 2
  for (int i = 0; i < 2; i++)
    c[i] = join(_mm512_unpacklo_ps(b[i], b[i + 2]), _mm512_unpackhi_ps(b[i], b[i + 2]));
  const f32x16 d = join(_mm512_unpacklo_ps(c[0], c[1]), _mm512_unpackhi_ps(c[0], c[1]));
  return _mm512_shuffle_f32x4(d, d, 0xd8);
}

OCTAVO_INLINE float reduce_add(f32x16 v) {
  const __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
}
OCTAVO_INLINE float reduce_max(f32x16 v) {
  const __m256 a = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  const __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 c = _mm_max_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_max_ss(c, _mm_shuffle_ps(c, c, 1)));
}

}  // namespace octavo::OCTAVO_ISA
