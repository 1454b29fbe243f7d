// matmul_sums.h: what the kernels of integer weights read of an int8 activation group, and how the
// dots of a part of it join their sums.
#pragma once
#include "kernels/matmul_parts.h"

namespace octavo::OCTAVO_ISA {

// Rows of an activation group (formats.h), in units of `stride` int32; before them 8 steps.
enum ActRow { kScaleRow = 8, kStartRow = 9, kLowRow = 10, kAmRow = 11, kGroupRows = 12 };

enum Part { kLowHalf = 0, kHighHalf = 1, kWhole = 2 };  // of the 32 k of a group

// -128 * sum(q) of a part.
OCTAVO_INLINE i32x16 start_of_128(Part part, const int32_t* a, int64_t stride, int m) {
  const i32x16 start = set1_i(a[(part == kLowHalf ? kLowRow : kStartRow) * stride + m]);
  return part == kHighHalf ? sub_i(start, set1_i(a[kLowRow * stride + m])) : start;
}

// What the mins of a part are multiplied with: scale * sum(q); of a half the negative, for what
// W2K takes off.
OCTAVO_INLINE f32x16 am_of(Part part, const int32_t* a, int64_t stride, int m) {
  if (part == kWhole) return as_float(set1_i(a[kAmRow * stride + m]));
  const i32x16 minus_sum = shift_right_s<7>(start_of_128(part, a, stride, m));
  return mul(as_float(set1_i(a[kScaleRow * stride + m])), to_float(minus_sum));
}

template <int R, int M>
OCTAVO_INLINE void add_scaled(const i32x16 (&dot)[R][M], const f32x16 (&ws)[R], const int32_t* a,
                              int64_t stride, f32x16 (&acc)[R][M]) {
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
    const f32x16 as = as_float(set1_i(a[kScaleRow * stride + m]));
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) acc[r][m] = fma(to_float(dot[r][m]), mul(ws[r], as), acc[r][m]);
  }
}

}  // namespace octavo::OCTAVO_ISA
