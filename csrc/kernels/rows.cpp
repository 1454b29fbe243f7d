// rows.cpp: element-wise and per-row operations between matrices: RMSNorm, RoPE, gated
// activations, sums, scaling.
//
// Every element is computed by the same vector operations wherever it lies, tails included, so
// cutting a row into ranges changes no bit (except in the norm, which needs its whole row).
#include "kernels/simd.h"

#include "kernels/exp.h"
#include "kernels/rows_parts.h"

namespace octavo::OCTAVO_ISA {

static constexpr float kLog2e = 0x1.715476p+0f;

static __attribute__((noinline)) void rms_norm(const float* x, const float* weight, float eps,
                                               int32_t n, float* out) {
  f32x16 squares = zero_f();
  int32_t k = 0;
  for (; k + 16 <= n; k += 16) {
    const f32x16 v = load_f(x + k);
    squares = fma(v, v, squares);
  }
  const mask16 tail = first_lanes(n - k);
  if (k < n) {
    const f32x16 v = load_f_mask(x + k, tail);
    squares = fma(v, v, squares);
  }
  const float mean = reduce_add(squares) / (float)n;
  const f32x16 r = set1_f(1.0f / __builtin_sqrtf(mean + eps));
  for (k = 0; k + 16 <= n; k += 16)
    store_f(out + k, mul(mul(load_f(x + k), r), load_f(weight + k)));
  if (k < n)
    store_f_mask(out + k, tail,
                 mul(mul(load_f_mask(x + k, tail), r), load_f_mask(weight + k, tail)));
}

static __attribute__((noinline)) void rope_halves(float* x, int32_t heads, int32_t dim,
                                                  int32_t half, const float* cos,
                                                  const float* sin) {
  for (int32_t i = 0; i < half; i += 16) {
    const mask16 m = first_lanes(half - i);
    const f32x16 c = load_f_mask(cos + i, m), s = load_f_mask(sin + i, m),
                 minus_s = mul(s, set1_f(-1.0f));
    for (int32_t h = 0; h < heads; h++) {
      float* p = x + (int64_t)h * dim + i;
      const f32x16 a = load_f_mask(p, m), b = load_f_mask(p + half, m);
      store_f_mask(p, m, fma(a, c, mul(b, minus_s)));
      store_f_mask(p + half, m, fma(b, c, mul(a, s)));
    }
  }
}

// Eight pairs a vector: every lane needs its neighbour, and the even ones the sine's negative.
static __attribute__((noinline)) void rope_interleaved(float* x, int32_t heads, int32_t dim,
                                                       int32_t half, const float* cos,
                                                       const float* sin) {
  alignas(64) static const float kSigns[16] = {-1, 1, -1, 1, -1, 1, -1, 1,
                                               -1, 1, -1, 1, -1, 1, -1, 1};
  for (int32_t i = 0; i < half; i += 8) {
    const int32_t pairs = half - i < 8 ? half - i : 8;
    float c8[8] = {}, s8[8] = {};
    __builtin_memcpy(c8, cos + i, (size_t)pairs * sizeof(float));
    __builtin_memcpy(s8, sin + i, (size_t)pairs * sizeof(float));
    const f32x16 c = twice_each(c8), s = mul(twice_each(s8), load_f(kSigns));
    const mask16 m = first_lanes(2 * pairs);
    for (int32_t h = 0; h < heads; h++) {
      float* p = x + (int64_t)h * dim + 2 * i;
      const f32x16 v = load_f_mask(p, m);
      store_f_mask(p, m, fma(v, c, mul(swap_pairs(v), s)));
    }
  }
}

static void rope(float* x, int32_t heads, int32_t dim, int32_t rotary_dim, const float* cos,
                 const float* sin, int32_t style) {
  if (style == kRopeHalves) {
    rope_halves(x, heads, dim, rotary_dim / 2, cos, sin);
  } else {
    rope_interleaved(x, heads, dim, rotary_dim / 2, cos, sin);
  }
}

// x * sigmoid(t) through exp(-|t|), which cannot overflow: 1 / (1 + e) for t >= 0, e / (1 + e)
// below.
OCTAVO_INLINE f32x16 times_sigmoid(f32x16 x, f32x16 t) {
  const mask16 negative = lt(t, zero_f());
  const f32x16 magnitude = select(negative, sub(zero_f(), t), t);
  const f32x16 e = exp2_poly(mul(magnitude, set1_f(-kLog2e)));
  const f32x16 share = div(select(negative, e, set1_f(1.0f)), add(set1_f(1.0f), e));
  return mul(x, share);
}

struct Silu {
  OCTAVO_INLINE f32x16 of(f32x16 x) { return times_sigmoid(x, x); }
};
// x / 2 * (1 + tanh(z)) = x * sigmoid(2z), z = sqrt(2 / pi) * (x + 0.044715 * x^3).
struct GeluTanh {
  OCTAVO_INLINE f32x16 of(f32x16 x) {
    const f32x16 factor = fma(mul(x, x), set1_f(0x1.2444f2p-4f), set1_f(0x1.988454p+0f));
    return times_sigmoid(x, mul(x, factor));
  }
};

template <class Kind>
static __attribute__((noinline)) void gate_mul_of(const float* gate, const float* up, int32_t n,
                                                  float* out) {
  int32_t k = 0;
  for (; k + 16 <= n; k += 16) store_f(out + k, mul(Kind::of(load_f(gate + k)), load_f(up + k)));
  const mask16 m = first_lanes(n - k);
  if (k < n)
    store_f_mask(out + k, m, mul(Kind::of(load_f_mask(gate + k, m)), load_f_mask(up + k, m)));
}

static void gate_mul(const float* gate, const float* up, int32_t activation, int32_t n,
                     float* out) {
  switch (activation) {
    case kSilu: return gate_mul_of<Silu>(gate, up, n, out);
    case kGeluTanh: return gate_mul_of<GeluTanh>(gate, up, n, out);
  }
}

static __attribute__((noinline)) void add_rows(const float* x, const float* y, int32_t n,
                                               float* out) {
  int32_t k = 0;
  for (; k + 16 <= n; k += 16) store_f(out + k, add(load_f(x + k), load_f(y + k)));
  const mask16 m = first_lanes(n - k);
  if (k < n) store_f_mask(out + k, m, add(load_f_mask(x + k, m), load_f_mask(y + k, m)));
}

static __attribute__((noinline)) void scale(const float* x, float factor, int32_t n, float* out) {
  const f32x16 f = set1_f(factor);
  int32_t k = 0;
  for (; k + 16 <= n; k += 16) store_f(out + k, mul(load_f(x + k), f));
  const mask16 m = first_lanes(n - k);
  if (k < n) store_f_mask(out + k, m, mul(load_f_mask(x + k, m), f));
}

static const RowKernels kRows = {
    .rms_norm = rms_norm,
    .rope = rope,
    .gate_mul = gate_mul,
    .add = add_rows,
    .scale = scale,
    .summarize_tile = summarize_tile,
    .merge_summaries = merge_summaries,
    .edit_tile = edit_tile,
    .top_k_tile = top_k_tile,
    .merge_top_k = merge_top_k,
    .sample = sample,
};

const RowKernels* row_kernels() { return &kRows; }

}  // namespace octavo::OCTAVO_ISA
