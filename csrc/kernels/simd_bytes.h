// simd_bytes.h: the words of simd.h that widen and narrow bytes.
//   i32x16 load_u8(const void*) load_s8(const void*)     16 bytes to 16 lanes
//   void   store_s8(void*, i32x16)                       the low byte of each lane, 16 bytes
#pragma once
#include "simd.h"

namespace octavo::OCTAVO_ISA {

#if OCTAVO_LEVEL >= OCTAVO_LEVEL_avx512
OCTAVO_INLINE i32x16 load_u8(const void* p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p)); }
OCTAVO_INLINE i32x16 load_s8(const void* p) { return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)); }
OCTAVO_INLINE void store_s8(void* p, i32x16 v) { _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8(v)); }
#else
// Levels without byte conversions of their own go through memory; the compiler makes vectors of these loops.
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

}  // namespace octavo::OCTAVO_ISA
