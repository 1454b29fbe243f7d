// transpose.h: words of 32 bits that lie the other way round, for kernels/kv_transpose.h.
//   i32x16 swap_middles(a)               of each 64 bits the second and the third 16 change places
//   i32x16 unpack_low(a, b) unpack_high  of each 128 bits the first, or the last, two words of a
//                                        and of b by turns
//   void   transpose_pairs(load, out)    pair j of words of row i, load(i), to pair i of row j, at
//                                        out(j); i and j are below 8
#pragma once
#include "kernels/simd.h"

namespace octavo::OCTAVO_ISA {

#if OCTAVO_LEVEL >= OCTAVO_LEVEL_avx512
OCTAVO_INLINE i32x16 swap_middles(i32x16 a) {
  const __m512i pick =
      _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
  return _mm512_shuffle_epi8(a, pick);
}
OCTAVO_INLINE i32x16 unpack_low(i32x16 a, i32x16 b) { return _mm512_unpacklo_epi32(a, b); }
OCTAVO_INLINE i32x16 unpack_high(i32x16 a, i32x16 b) { return _mm512_unpackhi_epi32(a, b); }

// Quarters of what `a` to `d` hold of rows 0-1 to 6-7: quarter i of each becomes out(2 * i + odd).
template <class Out>
OCTAVO_INLINE void store_quarters(i32x16 a, i32x16 b, i32x16 c, i32x16 d, int odd, Out out) {
  const i32x16 even0 = _mm512_shuffle_i64x2(a, b, 0x88), odd0 = _mm512_shuffle_i64x2(a, b, 0xdd),
               even1 = _mm512_shuffle_i64x2(c, d, 0x88), odd1 = _mm512_shuffle_i64x2(c, d, 0xdd);
  store_i(out(odd), _mm512_shuffle_i64x2(even0, even1, 0x88));
  store_i(out(2 + odd), _mm512_shuffle_i64x2(odd0, odd1, 0x88));
  store_i(out(4 + odd), _mm512_shuffle_i64x2(even0, even1, 0xdd));
  store_i(out(6 + odd), _mm512_shuffle_i64x2(odd0, odd1, 0xdd));
}
template <class Load, class Out> OCTAVO_INLINE void transpose_pairs(Load load, Out out) {
  i32x16 even[4], odd[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    const i32x16 first = load(2 * i), second = load(2 * i + 1);
    even[i] = _mm512_unpacklo_epi64(first, second);
    odd[i] = _mm512_unpackhi_epi64(first, second);
  }
  store_quarters(even[0], even[1], even[2], even[3], 0, out);
  store_quarters(odd[0], odd[1], odd[2], odd[3], 1, out);
}
#elif OCTAVO_LEVEL >= OCTAVO_LEVEL_avx2
OCTAVO_INLINE i32x16 swap_middles(i32x16 a) {
  const __m256i pick = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
  return {_mm256_shuffle_epi8(a.lo, pick), _mm256_shuffle_epi8(a.hi, pick)};
}
OCTAVO_INLINE i32x16 unpack_low(i32x16 a, i32x16 b) {
  return {_mm256_unpacklo_epi32(a.lo, b.lo), _mm256_unpacklo_epi32(a.hi, b.hi)};
}
OCTAVO_INLINE i32x16 unpack_high(i32x16 a, i32x16 b) {
  return {_mm256_unpackhi_epi32(a.lo, b.lo), _mm256_unpackhi_epi32(a.hi, b.hi)};
}

// Half `half` of rows row .. row + 3; of what is loaded the other half is never read.
template <class Load, class Out>
OCTAVO_INLINE void transpose_4x4(Load load, Out out, int row, int half) {
  const auto at = [&](int i) { return half == 0 ? load(row + i).lo : load(row + i).hi; };
  const __m256i a = at(0), b = at(1), c = at(2), d = at(3);
  const __m256i even0 = _mm256_unpacklo_epi64(a, b), odd0 = _mm256_unpackhi_epi64(a, b),
                even1 = _mm256_unpacklo_epi64(c, d), odd1 = _mm256_unpackhi_epi64(c, d);
  const auto put = [&](int j, __m256i v) {
    _mm256_storeu_si256((__m256i*)(out(half * 4 + j) + row * 8), v);
  };
  put(0, _mm256_permute2x128_si256(even0, even1, 0x20));
  put(1, _mm256_permute2x128_si256(odd0, odd1, 0x20));
  put(2, _mm256_permute2x128_si256(even0, even1, 0x31));
  put(3, _mm256_permute2x128_si256(odd0, odd1, 0x31));
}
template <class Load, class Out> OCTAVO_INLINE void transpose_pairs(Load load, Out out) {
  transpose_4x4(load, out, 0, 0);
  transpose_4x4(load, out, 4, 0);
  transpose_4x4(load, out, 0, 1);
  transpose_4x4(load, out, 4, 1);
}
#else
typedef int64_t i64x2 __attribute__((vector_size(16)));

OCTAVO_INLINE i32x4 swap_middles4(i32x4 a) {
  return (i32x4)__builtin_shufflevector((u16x8)a, (u16x8)a, 0, 2, 1, 3, 4, 6, 5, 7);
}
OCTAVO_INLINE i32x16 swap_middles(i32x16 a) {
  return {swap_middles4(a.a), swap_middles4(a.b), swap_middles4(a.c), swap_middles4(a.d)};
}
OCTAVO_INLINE i32x4 low4(i32x4 a, i32x4 b) { return __builtin_shufflevector(a, b, 0, 4, 1, 5); }
OCTAVO_INLINE i32x4 high4(i32x4 a, i32x4 b) { return __builtin_shufflevector(a, b, 2, 6, 3, 7); }
OCTAVO_INLINE i32x16 unpack_low(i32x16 a, i32x16 b) {
  return {low4(a.a, b.a), low4(a.b, b.b), low4(a.c, b.c), low4(a.d, b.d)};
}
OCTAVO_INLINE i32x16 unpack_high(i32x16 a, i32x16 b) {
  return {high4(a.a, b.a), high4(a.b, b.b), high4(a.c, b.c), high4(a.d, b.d)};
}

template <class Out>
OCTAVO_INLINE void transpose_2x2(i32x4 a, i32x4 b, int i, int quarter, Out out) {
  write_as(out(2 * quarter) + i * 8, __builtin_shufflevector((i64x2)a, (i64x2)b, 0, 2));
  write_as(out(2 * quarter + 1) + i * 8, __builtin_shufflevector((i64x2)a, (i64x2)b, 1, 3));
}
template <class Load, class Out> OCTAVO_INLINE void transpose_pairs(Load load, Out out) {
  for (int i = 0; i < 8; i += 2) {
    const i32x16 first = load(i), second = load(i + 1);
    transpose_2x2(first.a, second.a, i, 0, out);
    transpose_2x2(first.b, second.b, i, 1, out);
    transpose_2x2(first.c, second.c, i, 2, out);
    transpose_2x2(first.d, second.d, i, 3, out);
  }
}
#endif

}  // namespace octavo::OCTAVO_ISA
