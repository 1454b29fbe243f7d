// activations.h: the activations of rows.h as functions of 16 lanes, each a type of its own.
#pragma once
#include "kernels/simd.h"

#include "kernels/exp.h"
#include "kernels/phi.h"

namespace octavo::OCTAVO_ISA {

static constexpr float kLog2e = 0x1.715476p+0f;

// x * sigmoid(t) through exp(-|t|), which cannot overflow: 1 / (1 + e) for t >= 0, e / (1 + e)
// below.
OCTAVO_INLINE f32x16 times_sigmoid(f32x16 x, f32x16 t) {
  const mask16 negative = lt(t, zero_f());
  const f32x16 magnitude = select(negative, sub(zero_f(), t), t);
  const f32x16 e = exp2_poly(mul(magnitude, set1_f(-kLog2e)));
  const f32x16 share = div(select(negative, e, set1_f(1.0f)), add(set1_f(1.0f), e));
  return mul(x, share);
}

// What a gate does to up, with an activation of its own.
template <class Kind>
struct Gating {
  OCTAVO_INLINE f32x16 gated(f32x16 gate, f32x16 up) { return mul(Kind::of(gate), up); }
};

struct Silu : Gating<Silu> {
  OCTAVO_INLINE f32x16 of(f32x16 x) { return times_sigmoid(x, x); }
};
// x / 2 * (1 + tanh(z)) = x * sigmoid(2z), z = sqrt(2 / pi) * (x + 0.044715 * x^3).
struct GeluTanh : Gating<GeluTanh> {
  OCTAVO_INLINE f32x16 of(f32x16 x) {
    const f32x16 factor = fma(mul(x, x), set1_f(0x1.2444f2p-4f), set1_f(0x1.988454p+0f));
    return times_sigmoid(x, mul(x, factor));
  }
};

struct Gelu : Gating<Gelu> {
  OCTAVO_INLINE f32x16 of(f32x16 x) { return mul(x, phi(x)); }
};
struct Relu : Gating<Relu> {
  OCTAVO_INLINE f32x16 of(f32x16 x) { return select(lt(x, zero_f()), zero_f(), x); }
};

struct ClampedGlu {
  OCTAVO_INLINE f32x16 gated(f32x16 gate, f32x16 up) {
    const f32x16 most = set1_f(7.0f);
    // min and max return their second value if one is a NaN
    gate = min(most, gate);
    up = max(set1_f(-7.0f), min(most, up));
    return mul(times_sigmoid(gate, mul(gate, set1_f(1.702f))), add(up, set1_f(1.0f)));
  }
};

}  // namespace octavo::OCTAVO_ISA
