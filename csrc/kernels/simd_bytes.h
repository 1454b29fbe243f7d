// simd_bytes.h: the words of simd.h that widen and narrow bytes.
//   i32x16 load_u8(const void*) load_s8(const void*)     16 bytes to 16 lanes
//   void   store_s8(void*, i32x16)                       the low byte of each lane, 16 bytes
// and, where there is no instruction for a whole dot (kPairSums), dots in two stages, 32 sums of
// int16 first:
//   i32x16 add_pairs(i32x16 sums, w_u8x64, a_s8x64)      sums + the two byte products of each int16
//   lane i32x16 widen_pairs(i32x16 acc, i32x16 sums)          acc + the two int16 sums of each lane
// A pair is at most 2 * w * 127: 8 steps fit int16 for w <= 15, 4 for w <= 31, 2 for w <= 63.
// Where vpmaddubsw is all there is (kSignedDots), unsigned bytes are less cheap than signed ones:
//   i32x16 less_128(bytes)                               u8 to s8
//   i32x16 dot_s8s8(acc, w, a)                           acc + 4 products a lane, for a > -128
#pragma once
#include "kernels/simd.h"

namespace octavo::OCTAVO_ISA {

#if OCTAVO_LEVEL >= OCTAVO_LEVEL_avx512
OCTAVO_INLINE i32x16 load_u8(const void* p) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p));
}
OCTAVO_INLINE i32x16 load_s8(const void* p) {
  return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p));
}
OCTAVO_INLINE void store_s8(void* p, i32x16 v) {
  _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8(v));
}
#elif OCTAVO_LEVEL >= OCTAVO_LEVEL_avx2
OCTAVO_INLINE i32x16 load_u8(const void* p) {
  return {_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p)),
          _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)((const uint8_t*)p + 8)))};
}
OCTAVO_INLINE i32x16 load_s8(const void* p) {
  return {_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)),
          _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)((const uint8_t*)p + 8)))};
}
OCTAVO_INLINE void store_s8(void* p, i32x16 v) {
  const i32x16 low = and_i(v, set1_i(0xff));                   // so that nothing saturates
  const __m256i halves = _mm256_packus_epi32(low.lo, low.hi);  // of 4 lanes: 0, 2, 1, 3
  const __m128i first = _mm256_castsi256_si128(halves),
                second = _mm256_extracti128_si256(halves, 1);
  const __m128i bytes = _mm_packus_epi16(first, second);  // lanes 0-3, 8-11, 4-7, 12-15
  _mm_storeu_si128((__m128i*)p, _mm_shuffle_epi32(bytes, 0xd8));
}
#else
// Levels without byte conversions of their own go through memory; the compiler makes vectors of
// these loops.
OCTAVO_INLINE i32x16 load_u8(const void* p) {
  int32_t wide[16];
  for (int i = 0; i < 16; ++i) wide[i] = ((const uint8_t*)p)[i];
  return load_i(wide);
}
OCTAVO_INLINE i32x16 load_s8(const void* p) {
  int32_t wide[16];
  for (int i = 0; i < 16; ++i) wide[i] = ((const int8_t*)p)[i];
  return load_i(wide);
}
OCTAVO_INLINE void store_s8(void* p, i32x16 v) {
  int32_t wide[16];
  store_i(wide, v);
  for (int i = 0; i < 16; ++i) ((int8_t*)p)[i] = (int8_t)wide[i];
}
#endif

#if OCTAVO_LEVEL != OCTAVO_LEVEL_avx2  // never called
OCTAVO_INLINE i32x16 dot_s8s8(i32x16 acc, i32x16, i32x16) { return acc; }
OCTAVO_INLINE i32x16 less_128(i32x16 bytes) { return bytes; }
#endif
#if OCTAVO_LEVEL == OCTAVO_LEVEL_avx2
constexpr bool kPairSums = true, kSignedDots = true;
OCTAVO_INLINE i32x16 add_pairs(i32x16 sums, i32x16 w, i32x16 a) {
  return {added(_mm256_add_epi16(sums.lo, _mm256_maddubs_epi16(w.lo, a.lo))),
          added(_mm256_add_epi16(sums.hi, _mm256_maddubs_epi16(w.hi, a.hi)))};
}
OCTAVO_INLINE i32x16 widen_pairs(i32x16 acc, i32x16 sums) {
  const __m256i ones = _mm256_set1_epi16(1);
  return {_mm256_add_epi32(acc.lo, _mm256_madd_epi16(sums.lo, ones)),
          _mm256_add_epi32(acc.hi, _mm256_madd_epi16(sums.hi, ones))};
}
OCTAVO_INLINE i32x16 dot_s8s8(i32x16 acc, i32x16 w, i32x16 a) {
  return {dot_u7s8_half(acc.lo, _mm256_abs_epi8(w.lo), _mm256_sign_epi8(a.lo, w.lo)),
          dot_u7s8_half(acc.hi, _mm256_abs_epi8(w.hi), _mm256_sign_epi8(a.hi, w.hi))};
}
OCTAVO_INLINE i32x16 less_128(i32x16 bytes) {
  const __m256i sign = _mm256_set1_epi8((char)0x80);
  return {_mm256_xor_si256(bytes.lo, sign), _mm256_xor_si256(bytes.hi, sign)};
}
#elif OCTAVO_LEVEL == OCTAVO_LEVEL_base
constexpr bool kPairSums = true, kSignedDots = false;
OCTAVO_INLINE i32x4 add_pairs4(i32x4 sums, i32x4 w, i32x4 a) {
  const i16x8 w_even = (i16x8)((u16x8)w & (uint16_t)0x00ff), w_odd = (i16x8)((u16x8)w >> 8);
  const i16x8 a_even = (i16x8)((u16x8)a << 8) >> 8, a_odd = (i16x8)a >> 8;
  return (i32x4)((i16x8)sums + w_even * a_even + w_odd * a_odd);
}
OCTAVO_INLINE i32x4 widen_pairs4(i32x4 acc, i32x4 sums) {
  return acc + (shift_left4<16>(sums) >> 16) + (sums >> 16);
}
OCTAVO_INLINE i32x16 add_pairs(i32x16 sums, i32x16 w, i32x16 a) {
  return {add_pairs4(sums.a, w.a, a.a), add_pairs4(sums.b, w.b, a.b), add_pairs4(sums.c, w.c, a.c),
          add_pairs4(sums.d, w.d, a.d)};
}
OCTAVO_INLINE i32x16 widen_pairs(i32x16 acc, i32x16 sums) {
  return {widen_pairs4(acc.a, sums.a), widen_pairs4(acc.b, sums.b), widen_pairs4(acc.c, sums.c),
          widen_pairs4(acc.d, sums.d)};
}
#else
constexpr bool kPairSums = false, kSignedDots = false;
OCTAVO_INLINE i32x16 add_pairs(i32x16 sums, i32x16, i32x16) { return sums; }  // never called
OCTAVO_INLINE i32x16 widen_pairs(i32x16 acc, i32x16) { return acc; }
#endif

}  // namespace octavo::OCTAVO_ISA
