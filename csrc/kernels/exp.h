// exp.h: 2^x and e^x for 16 lanes, in the words of simd.h: the only exponential of the kernels.
//
// Relative error of exp2_* against the exact 2^x of the float x: below 2.5e-7 at every level
// (tested over the whole range). 2^x = 2^n * 2^f with n = round_even(x), f = x - n (exact); 2^f is
// a degree-5 polynomial, minimax in relative error (1.1e-7) under the constraint p(0) = 1, so that
// exp2(0) is exactly 1 and a rescale by it changes nothing. Below -126 the result is exactly 0, so
// no level ever makes or flushes a denormal here. NaN stays NaN.
#pragma once
#include "kernels/simd.h"

namespace octavo::OCTAVO_ISA {

// x as n, which is returned, and 2^f * unit.
OCTAVO_INLINE f32x16 split_exp2(f32x16 x, float unit, f32x16* power_of_f) {
  const f32x16 whole = set1_f(0x1.8p23f);  // floats near it are whole numbers
  const f32x16 n = sub(add(x, whole), whole);
  const f32x16 f = sub(x, n);
  f32x16 p = set1_f(0x1.5bba14p-10f * unit);
  p = fma(p, f, set1_f(0x1.3cea88p-7f * unit));
  p = fma(p, f, set1_f(0x1.c6b752p-5f * unit));
  p = fma(p, f, set1_f(0x1.ebf9bcp-3f * unit));
  p = fma(p, f, set1_f(0x1.62e42ap-1f * unit));
  *power_of_f = fma(p, f, set1_f(unit));
  return n;
}

// 2^x * unit, for -126 <= x <= 127; the unit is a power of two, which is exact wherever it is
// multiplied in as long as the result is no denormal and no infinity.
OCTAVO_INLINE f32x16 exp2_in_range(f32x16 x, float unit) {
  f32x16 p;
  const f32x16 n = split_exp2(x, unit, &p);
  return scale2(p, n);
}

// For x <= 127. -inf and -1e30 give 0.
OCTAVO_INLINE f32x16 exp2_below_127(f32x16 x) {
  f32x16 p;
  const f32x16 n = split_exp2(x, 1.0f, &p);
  return scale2_from(set1_f(-126.0f), x, p, n);
}

// For any x: saturates at 2^127 (so that 1 / exp2_poly(x) never makes a denormal, and +inf gives a
// number).
OCTAVO_INLINE f32x16 exp2_poly(f32x16 x) {
  return exp2_below_127(min(set1_f(127.0f), x));  // min returns its second argument for NaN
}

}  // namespace octavo::OCTAVO_ISA
