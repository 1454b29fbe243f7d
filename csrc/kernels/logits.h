// logits.h: reading a row of logits, sixteen at a time, and the largest of them; for the head and
// the sampler.
#pragma once
#include "kernels/simd.h"

namespace octavo::OCTAVO_ISA {

static const float kMinusInf = -__builtin_inff();

// Lanes past the end read as -inf, which changes neither a maximum nor a sum.
OCTAVO_INLINE f32x16 load_logits(const float* logits, int32_t i, int32_t n) {
  if (i + 16 <= n) return load_f(logits + i);
  const mask16 m = first_lanes(n - i);
  return select(m, load_f_mask(logits + i, m), set1_f(kMinusInf));
}

// max(x, acc) is acc where x is NaN. Four chains: a maximum has no order.
static float largest_logit(const float* logits, int32_t n) {
  f32x16 m0 = set1_f(kMinusInf), m1 = m0, m2 = m0, m3 = m0;
  int32_t i = 0;
  for (; i + 64 <= n; i += 64) {
    m0 = max(load_f(logits + i), m0);
    m1 = max(load_f(logits + i + 16), m1);
    m2 = max(load_f(logits + i + 32), m2);
    m3 = max(load_f(logits + i + 48), m3);
  }
  for (; i < n; i += 16) m0 = max(load_logits(logits, i, n), m0);
  return reduce_max(max(max(m0, m1), max(m2, m3)));
}

}  // namespace octavo::OCTAVO_ISA
