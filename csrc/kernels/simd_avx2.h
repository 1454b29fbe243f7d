// simd_avx2.h: the words of simd.h as two ymm, for levels avx2 (AVX2, FMA, F16C) and avxvnni (the
// same with vpdpbusd).
//
// Masks are vectors here: lt and select cost one instruction a half, and only lane_bits leaves the
// vector side.
#pragma once
#include <immintrin.h>

namespace octavo::OCTAVO_ISA {

struct f32x16 {
  __m256 lo, hi;
};
struct i32x16 {
  __m256i lo, hi;
};
struct mask16 {
  __m256i lo, hi;
};  // lanes all ones or all zero

OCTAVO_INLINE f32x16 zero_f() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
OCTAVO_INLINE f32x16 set1_f(float v) { return {_mm256_set1_ps(v), _mm256_set1_ps(v)}; }
OCTAVO_INLINE f32x16 load_f(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
OCTAVO_INLINE void store_f(float* p, f32x16 v) {
  _mm256_storeu_ps(p, v.lo);
  _mm256_storeu_ps(p + 8, v.hi);
}
OCTAVO_INLINE f32x16 load_f_mask(const float* p, mask16 m) {
  return {_mm256_maskload_ps(p, m.lo), _mm256_maskload_ps(p + 8, m.hi)};
}
// AMD makes dozens of steps of a masked store; mostly all lanes are there.
OCTAVO_INLINE void store_f_mask(float* p, mask16 m, f32x16 v) {
  const __m256 all = _mm256_castsi256_ps(_mm256_and_si256(m.lo, m.hi));
  if (__builtin_expect(_mm256_movemask_ps(all) == 0xff, 1)) return store_f(p, v);
  _mm256_maskstore_ps(p, m.lo, v.lo);
  _mm256_maskstore_ps(p + 8, m.hi, v.hi);
}
OCTAVO_INLINE f32x16 add(f32x16 a, f32x16 b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
OCTAVO_INLINE f32x16 sub(f32x16 a, f32x16 b) {
  return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
OCTAVO_INLINE f32x16 mul(f32x16 a, f32x16 b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
OCTAVO_INLINE f32x16 div(f32x16 a, f32x16 b) {
  return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
OCTAVO_INLINE f32x16 max(f32x16 a, f32x16 b) {
  return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
OCTAVO_INLINE f32x16 min(f32x16 a, f32x16 b) {
  return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}
OCTAVO_INLINE f32x16 fma(f32x16 a, f32x16 b, f32x16 c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
OCTAVO_INLINE f32x16 select(mask16 m, f32x16 a, f32x16 b) {
  return {_mm256_blendv_ps(b.lo, a.lo, _mm256_castsi256_ps(m.lo)),
          _mm256_blendv_ps(b.hi, a.hi, _mm256_castsi256_ps(m.hi))};
}
OCTAVO_INLINE f32x16 round_even(f32x16 a) {
  constexpr int kEven = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.lo, kEven), _mm256_round_ps(a.hi, kEven)};
}

OCTAVO_INLINE i32x16 zero_i() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
OCTAVO_INLINE i32x16 set1_i(int32_t v) { return {_mm256_set1_epi32(v), _mm256_set1_epi32(v)}; }
OCTAVO_INLINE i32x16 load_i(const void* p) {
  return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)p + 1)};
}
OCTAVO_INLINE void store_i(void* p, i32x16 v) {
  _mm256_storeu_si256((__m256i*)p, v.lo);
  _mm256_storeu_si256((__m256i*)p + 1, v.hi);
}
OCTAVO_INLINE i32x16 add_i(i32x16 a, i32x16 b) {
  return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)};
}
OCTAVO_INLINE i32x16 sub_i(i32x16 a, i32x16 b) {
  return {_mm256_sub_epi32(a.lo, b.lo), _mm256_sub_epi32(a.hi, b.hi)};
}
OCTAVO_INLINE i32x16 and_i(i32x16 a, i32x16 b) {
  return {_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)};
}
OCTAVO_INLINE i32x16 or_i(i32x16 a, i32x16 b) {
  return {_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)};
}
template <int N> OCTAVO_INLINE i32x16 shift_left(i32x16 a) {
  return {_mm256_slli_epi32(a.lo, N), _mm256_slli_epi32(a.hi, N)};
}
template <int N> OCTAVO_INLINE i32x16 shift_right_u(i32x16 a) {
  return {_mm256_srli_epi32(a.lo, N), _mm256_srli_epi32(a.hi, N)};
}
template <int N> OCTAVO_INLINE i32x16 shift_right_s(i32x16 a) {
  return {_mm256_srai_epi32(a.lo, N), _mm256_srai_epi32(a.hi, N)};
}
template <int N> OCTAVO_INLINE i32x16 shift_right16(i32x16 a) {
  return {_mm256_srli_epi16(a.lo, N), _mm256_srli_epi16(a.hi, N)};
}
OCTAVO_INLINE f32x16 to_float(i32x16 a) {
  return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)};
}
OCTAVO_INLINE i32x16 to_int(f32x16 a) {
  return {_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi)};
}
OCTAVO_INLINE f32x16 as_float(i32x16 a) {
  return {_mm256_castsi256_ps(a.lo), _mm256_castsi256_ps(a.hi)};
}
OCTAVO_INLINE i32x16 as_int(f32x16 a) {
  return {_mm256_castps_si256(a.lo), _mm256_castps_si256(a.hi)};
}

OCTAVO_INLINE f32x16 scale2(f32x16 p, f32x16 n) {
  return mul(p, as_float(shift_left<23>(add_i(to_int(n), set1_i(127)))));
}

#if OCTAVO_LEVEL == OCTAVO_LEVEL_avxvnni
OCTAVO_INLINE i32x16 dot_u8s8(i32x16 acc, i32x16 w, i32x16 a) {
  return {_mm256_dpbusd_avx_epi32(acc.lo, w.lo, a.lo), _mm256_dpbusd_avx_epi32(acc.hi, w.hi, a.hi)};
}
OCTAVO_INLINE i32x16 dot_u7s8(i32x16 acc, i32x16 w, i32x16 a) { return dot_u8s8(acc, w, a); }
#else
// vpmaddubsw saturates for w > 127, so even and odd bytes are widened to 16 bits: exact for every
// u8 and s8.
OCTAVO_INLINE __m256i dot_u8s8_half(__m256i acc, __m256i w, __m256i a) {
  const __m256i w_even = _mm256_and_si256(w, _mm256_set1_epi16(0x00ff));
  const __m256i a_even = _mm256_srai_epi16(_mm256_slli_epi16(a, 8), 8);
  const __m256i even = _mm256_madd_epi16(w_even, a_even);
  const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(w, 8), _mm256_srai_epi16(a, 8));
  return _mm256_add_epi32(acc, _mm256_add_epi32(even, odd));
}
OCTAVO_INLINE i32x16 dot_u8s8(i32x16 acc, i32x16 w, i32x16 a) {
  return {dot_u8s8_half(acc.lo, w.lo, a.lo), dot_u8s8_half(acc.hi, w.hi, a.hi)};
}
// A sum that is needed now. gcc puts additions of whole numbers off, and keeps all that they add on
// the stack (measured: half the speed).
OCTAVO_INLINE __m256i added(__m256i sum) {
  __asm__("" : "+x"(sum));
  return sum;
}
// |2 * 127 * 128| < 2^15: the pair sums of vpmaddubsw are exact.
OCTAVO_INLINE __m256i dot_u7s8_half(__m256i acc, __m256i w, __m256i a) {
  return added(
      _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(w, a), _mm256_set1_epi16(1))));
}
OCTAVO_INLINE i32x16 dot_u7s8(i32x16 acc, i32x16 w, i32x16 a) {
  return {dot_u7s8_half(acc.lo, w.lo, a.lo), dot_u7s8_half(acc.hi, w.hi, a.hi)};
}
#endif

OCTAVO_INLINE f32x16 dot_bf16(f32x16 acc, i32x16 a, i32x16 b) {
  const i32x16 high = set1_i((int32_t)0xffff0000u);
  acc = fma(as_float(and_i(a, high)), as_float(and_i(b, high)), acc);
  return fma(as_float(shift_left<16>(a)), as_float(shift_left<16>(b)), acc);
}

OCTAVO_INLINE f32x16 load_f16(const void* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)),
          _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p + 1))};
}
OCTAVO_INLINE f32x16 load_bf16(const void* p) {
  const i32x16 wide = {_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)),
                       _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p + 1))};
  return as_float(shift_left<16>(wide));
}

OCTAVO_INLINE mask16 lt(f32x16 a, f32x16 b) {
  return {_mm256_castps_si256(_mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ)),
          _mm256_castps_si256(_mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ))};
}
OCTAVO_INLINE f32x16 scale2_from(f32x16 low, f32x16 x, f32x16 p, f32x16 n) {
  return select(lt(x, low), zero_f(), scale2(p, n));
}
OCTAVO_INLINE mask16 is_nan(f32x16 a) {
  return {_mm256_castps_si256(_mm256_cmp_ps(a.lo, a.lo, _CMP_UNORD_Q)),
          _mm256_castps_si256(_mm256_cmp_ps(a.hi, a.hi, _CMP_UNORD_Q))};
}
OCTAVO_INLINE mask16 and_m(mask16 a, mask16 b) {
  return {_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)};
}
OCTAVO_INLINE mask16 first_lanes(int n) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), count = _mm256_set1_epi32(n);
  return {_mm256_cmpgt_epi32(count, lane),
          _mm256_cmpgt_epi32(count, _mm256_add_epi32(lane, _mm256_set1_epi32(8)))};
}
OCTAVO_INLINE uint32_t lane_bits(mask16 m) {
  return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(m.lo)) |
         (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(m.hi)) << 8;
}
OCTAVO_INLINE mask16 lanes_of(uint32_t bits) {
  const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128),
                high = _mm256_slli_epi32(bit, 8);
  const __m256i all = _mm256_set1_epi32((int32_t)bits);
  return {_mm256_cmpeq_epi32(_mm256_and_si256(all, bit), bit),
          _mm256_cmpeq_epi32(_mm256_and_si256(all, high), high)};
}

// Rounded in integer arithmetic at every level, see simd_avx512.h.
OCTAVO_INLINE i32x16 to_bf16_bits(f32x16 a) {
  const i32x16 bits = as_int(a);
  const i32x16 odd = and_i(shift_right_u<16>(bits), set1_i(1));
  const i32x16 rounded = shift_right_u<16>(add_i(bits, add_i(odd, set1_i(0x7fff))));
  return as_int(select(is_nan(a), as_float(set1_i(0x7fc0)), as_float(rounded)));
}
OCTAVO_INLINE i32x16 to_bf16_pair(f32x16 lo, f32x16 hi) {
  return or_i(to_bf16_bits(lo), shift_left<16>(to_bf16_bits(hi)));
}

OCTAVO_INLINE void store_bf16(void* p, f32x16 v) {
  const i32x16 bits = to_bf16_bits(v);
  _mm256_storeu_si256((__m256i*)p,
                      _mm256_permute4x64_epi64(_mm256_packus_epi32(bits.lo, bits.hi), 0xd8));
}

// Byte b of the result is all ones where bit b of m is set: each lane of 8 bytes picks its own byte
// of m.
OCTAVO_INLINE __m256i byte_mask(uint32_t m) {
  const __m256i pick =
      _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
  const __m256i bit = _mm256_set1_epi64x((int64_t)0x8040201008040201u);
  const __m256i spread = _mm256_shuffle_epi8(_mm256_set1_epi32((int32_t)m), pick);
  return _mm256_cmpeq_epi8(_mm256_and_si256(spread, bit), bit);
}
OCTAVO_INLINE i32x16 mask_byte_add16(i32x16 a, uint64_t m) {
  const __m256i sixteen = _mm256_set1_epi8(16);
  return {_mm256_add_epi8(a.lo, _mm256_and_si256(byte_mask((uint32_t)m), sixteen)),
          _mm256_add_epi8(a.hi, _mm256_and_si256(byte_mask((uint32_t)(m >> 32)), sixteen))};
}

OCTAVO_INLINE i32x16 look_up(const uint8_t* table, i32x16 index) {
  const __m256i both = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)table));
  return {_mm256_shuffle_epi8(both, index.lo), _mm256_shuffle_epi8(both, index.hi)};
}

template <int K> OCTAVO_INLINE __m256 swap_lanes8(__m256 a) {
  if constexpr (K < 4) return _mm256_permute_ps(a, K == 1 ? 0xb1 : 0x4e);
  else return _mm256_permute2f128_ps(a, a, 0x01);
}
template <int K> OCTAVO_INLINE f32x16 swap_lanes(f32x16 a) {
  if constexpr (K == 8) return {a.hi, a.lo};
  else return {swap_lanes8<K>(a.lo), swap_lanes8<K>(a.hi)};
}
OCTAVO_INLINE f32x16 twice_each(const float* p) {
  const __m256 all = _mm256_loadu_ps(p);
  return {_mm256_permutevar8x32_ps(all, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3)),
          _mm256_permutevar8x32_ps(all, _mm256_setr_epi32(4, 4, 5, 5, 6, 6, 7, 7))};
}

OCTAVO_INLINE float reduce_add(f32x16 v) {
  const __m256 a = _mm256_add_ps(v.lo, v.hi);
  const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
}
OCTAVO_INLINE float reduce_max(f32x16 v) {
  const __m256 a = _mm256_max_ps(v.lo, v.hi);
  const __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 c = _mm_max_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_max_ss(c, _mm_shuffle_ps(c, c, 1)));
}

}  // namespace octavo::OCTAVO_ISA
