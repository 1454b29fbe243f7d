// tanh.h: tanh(x) for 16 lanes, in the words of simd.h: the only tanh of the kernels.
//
// Within 3 units in the last place of the exact tanh of the float x from |x| = 2^-120 on, at every
// level (tested); odd, never above 1 in magnitude, and -0, infinities and NaN as in libm. With
// y = -2 |x| log2(e), n = round_even(y), f = y - n (exact), tanh |x| is -m / (2 + m) of
// m = 2^y - 1 = 2^n (2^f - 1) + (2^n - 1): no difference of near numbers where m is small.
// (2^f - 1) / f is a polynomial of degree 5, minimax in relative error (0.22 * 2^-24).
#pragma once
#include "kernels/simd.h"

namespace octavo::OCTAVO_ISA {

OCTAVO_INLINE f32x16 tanh_poly(f32x16 x) {
  const f32x16 magnitude = as_float(and_i(as_int(x), set1_i(INT32_MAX)));
  // From -64 on tanh is 1; max returns its second argument for NaN.
  const f32x16 y = max(set1_f(-64.0f), mul(magnitude, set1_f(-0x1.715476p+1f)));
  const f32x16 n = round_even(y);
  const f32x16 f = sub(y, n);
  f32x16 p = set1_f(0x1.42985ep-13f);
  p = fma(p, f, set1_f(0x1.5ef136p-10f));
  p = fma(p, f, set1_f(0x1.3b2c3cp-7f));
  p = fma(p, f, set1_f(0x1.c6afa4p-5f));
  p = fma(p, f, set1_f(0x1.ebfbdep-3f));
  p = fma(p, f, set1_f(0x1.62e43p-1f));
  const f32x16 power = scale2(set1_f(1.0f), n);
  const f32x16 m = fma(mul(p, f), power, sub(power, set1_f(1.0f)));
  const f32x16 t = div(sub(zero_f(), m), add(set1_f(2.0f), m));
  return as_float(or_i(as_int(t), and_i(as_int(x), set1_i(INT32_MIN))));
}

}  // namespace octavo::OCTAVO_ISA
