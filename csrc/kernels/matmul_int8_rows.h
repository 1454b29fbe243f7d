// matmul_int8_rows.h: float32 rows as int8 groups of 32 with their scales and sums (A32 of
// formats.h), whatever order their bytes have.
//
// One group of one row at a time in a fixed lane order, so a row's bytes do not depend on its
// neighbours.
#pragma once
#include "kernels/matmul_parts.h"
#include "kernels/simd_bytes.h"

namespace octavo::OCTAVO_ISA {

constexpr float kSmallest = 1e-30f;  // below it 127/amax could overflow; the group counts as zero

OCTAVO_INLINE int32_t float_bits(float v) {
  int32_t bits;
  __builtin_memcpy(&bits, &v, 4);
  return bits;
}

OCTAVO_INLINE f32x16 absolute(f32x16 v) { return as_float(and_i(as_int(v), set1_i(0x7fffffff))); }

constexpr int kRun = 8;  // groups that are quantised together

// 32 values to bytes; returned is their scale, NaN if one of them is an inf or a NaN.
OCTAVO_INLINE float quantize_group(const float* x, int8_t* q) {
  const f32x16 x0 = load_f(x), x1 = load_f(x + 16);
  const float amax = reduce_max(max(absolute(x0), absolute(x1)));
  const bool zero = amax < kSmallest;
  const f32x16 inverse = set1_f(zero ? 0.0f : 127.0f / amax);
  store_s8(q, to_int(mul(x0, inverse)));
  store_s8(q + 16, to_int(mul(x1, inverse)));
  const f32x16 zero_or_nan = add(sub(x0, x0), sub(x1, x1));  // inf - inf is NaN
  if (lane_bits(is_nan(zero_or_nan)) != 0) return __builtin_nanf("");
  return zero ? 0.0f : amax / 127.0f;
}

// Where a row of groups goes: its k4 steps are `step` int32 apart; from `scalars` on are its scale,
// start, low and am, `stride` apart, and a group is 12 * stride.
struct Int8Place {
  int32_t* quants;
  int64_t step, scalars, stride;  // scalars: from quants
};

// At most kRun groups. In three passes, so that none waits for what the one before has just stored.
OCTAVO_INLINE void quantize_run(const float* x, int groups, const Int8Place& to) {
  alignas(64) int8_t q[kRun * 32] = {};
  alignas(64) int32_t sums[kRun * 8];  // of 4 k
  float scales[kRun];
  for (int g = 0; g < groups; ++g) scales[g] = quantize_group(x + g * 32, q + g * 32);
  for (int g = 0; g < groups; g += 2)
    store_i(sums + g * 8, dot_u7s8(zero_i(), set1_i(0x01010101), load_i(q + g * 32)));
  int32_t *quants = to.quants, *scalars = to.quants + to.scalars;
  for (int g = 0; g < groups; ++g, quants += 12 * to.stride, scalars += 12 * to.stride) {
    const int32_t* s = sums + g * 8;
    const int32_t low = s[0] + s[1] + s[2] + s[3], all = low + s[4] + s[5] + s[6] + s[7];
    const bool spoilt = scales[g] != scales[g];
    for (int j = 0; j < 8; ++j) {
      int32_t step;
      __builtin_memcpy(&step, q + g * 32 + j * 4, 4);
      quants[j * to.step] = spoilt ? 0 : step;
    }
    scalars[0] = float_bits(scales[g]);
    scalars[to.stride] = spoilt ? 0 : -128 * all;
    scalars[2 * to.stride] = spoilt ? 0 : -128 * low;
    scalars[3 * to.stride] = float_bits(scales[g] * (float)all);
  }
}

OCTAVO_INLINE void quantize_int8(const float* x, int groups, Int8Place to) {
  for (int g = 0; g < groups; g += kRun, to.quants += kRun * 12 * to.stride)
    quantize_run(x + g * 32, groups - g < kRun ? groups - g : kRun, to);
}

}  // namespace octavo::OCTAVO_ISA
