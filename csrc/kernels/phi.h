// phi.h: the normal distribution's share below x, (1 + erf(x / sqrt(2))) / 2, for 16 lanes, in the
// words of simd.h: what gelu multiplies by.
//
// x * phi(x) is within 7 units in the last place for x >= -1, and within 8 + x^2 below, where the
// square's rounding shows, at every level; phi is exactly 0 below -13.2 and 1 above 5.7 (tested
// over the whole range). With a = |x|, the share below -a is exp(-a^2 / 2) * t * p(t), t = 1 / (1 +
// 0.35 a); p is of degree 8, minimax in relative error (5.4e-8 with its coefficients as floats). 1
// - that above 0. NaN stays NaN.
#pragma once
#include "kernels/exp.h"

namespace octavo::OCTAVO_ISA {

OCTAVO_INLINE f32x16 phi(f32x16 x) {
  const mask16 negative = lt(x, zero_f());
  const f32x16 a = select(negative, sub(zero_f(), x), x);
  const f32x16 t = div(set1_f(1.0f), fma(a, set1_f(0x1.666666p-2f), set1_f(1.0f)));
  f32x16 p = set1_f(-0x1.dd3284p-6f);
  p = fma(p, t, set1_f(0x1.26a66p-3f));
  p = fma(p, t, set1_f(-0x1.05a2e4p-2f));
  p = fma(p, t, set1_f(0x1.457c8ap-3f));
  p = fma(p, t, set1_f(-0x1.77cc78p-6f));
  p = fma(p, t, set1_f(0x1.afda6p-4f));
  p = fma(p, t, set1_f(0x1.eaea66p-4f));
  p = fma(p, t, set1_f(0x1.1e6e7p-3f));
  p = fma(p, t, set1_f(0x1.1df1eap-3f));
  const f32x16 power = exp2_poly(mul(mul(a, a), set1_f(-0x1.715476p-1f)));
  const f32x16 below = mul(power, mul(t, p));
  return select(negative, below, sub(set1_f(1.0f), below));
}

}  // namespace octavo::OCTAVO_ISA
