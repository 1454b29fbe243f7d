// rows.cpp: element-wise and per-row operations between matrices: norms, RoPE, gated
// activations, sums, scaling.
//
// Every element is computed by the same vector operations wherever it lies, tails included, so
// cutting a row into ranges changes no bit (except in the norm, which needs its whole row).
#include "kernels/simd.h"

#include "kernels/activations.h"
#include "kernels/rows_parts.h"

namespace octavo::OCTAVO_ISA {

// Sixteen values of a row, or the last ones: whole vectors are read without a mask. `kind` says
// how.
struct Whole {
  OCTAVO_INLINE f32x16 load(const float* p, mask16) { return load_f(p); }
  OCTAVO_INLINE f32x16 keep(f32x16 v, mask16) { return v; }
  OCTAVO_INLINE void store(float* p, mask16, f32x16 v) { store_f(p, v); }
};
struct Tail {
  OCTAVO_INLINE f32x16 load(const float* p, mask16 m) { return load_f_mask(p, m); }
  OCTAVO_INLINE f32x16 keep(f32x16 v, mask16 m) { return select(m, v, zero_f()); }
  OCTAVO_INLINE void store(float* p, mask16 m, f32x16 v) { store_f_mask(p, m, v); }
};
template <class Step> OCTAVO_INLINE void for_row(int32_t n, Step step) {
  int32_t k = 0;
  for (; k + 16 <= n; k += 16) step(Whole{}, k, first_lanes(16));
  if (k < n) step(Tail{}, k, first_lanes(n - k));
}

// `centred`: the mean is taken off. Both are constants where it is called.
OCTAVO_INLINE void norm_row(bool centred, const float* x, const float* weight, const float* bias,
                            float eps, int32_t n, float* out) {
  f32x16 mean = zero_f(), squares = zero_f();
  if (centred) {
    for_row(n, [&](auto at, int32_t k, mask16 m) { mean = add(at.load(x + k, m), mean); });
    mean = set1_f(reduce_add(mean) / (float)n);
  }
  const auto value = [&](auto at, int32_t k, mask16 m) {
    const f32x16 v = at.load(x + k, m);
    return centred ? at.keep(sub(v, mean), m) : v;
  };
  for_row(n, [&](auto at, int32_t k, mask16 m) {
    const f32x16 v = value(at, k, m);
    squares = fma(v, v, squares);
  });
  const f32x16 r = set1_f(1.0f / __builtin_sqrtf(reduce_add(squares) / (float)n + eps));
  for_row(n, [&](auto at, int32_t k, mask16 m) {
    f32x16 v = mul(value(at, k, m), r);
    if (weight && bias) v = fma(v, at.load(weight + k, m), at.load(bias + k, m));
    else if (weight) v = mul(v, at.load(weight + k, m));
    else if (bias) v = add(v, at.load(bias + k, m));
    at.store(out + k, m, v);
  });
}

static __attribute__((noinline)) void rms_norm(const float* x, const float* weight,
                                               const float* bias, float eps, int32_t n,
                                               float* out) {
  norm_row(false, x, weight, bias, eps, n, out);
}

static __attribute__((noinline)) void layer_norm(const float* x, const float* weight,
                                                 const float* bias, float eps, int32_t n,
                                                 float* out) {
  norm_row(true, x, weight, bias, eps, n, out);
}

static void norm(int32_t kind, const float* x, const float* weight, const float* bias, float eps,
                 int32_t n, float* out) {
  switch (kind) {
    case kRmsNorm: return rms_norm(x, weight, bias, eps, n, out);
    case kLayerNorm: return layer_norm(x, weight, bias, eps, n, out);
  }
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
    for (int32_t j = 0; pairs < 8 && j < pairs; j++) {
      c8[j] = cos[i + j];
      s8[j] = sin[i + j];
    }
    const f32x16 c = twice_each(pairs < 8 ? c8 : cos + i),
                 s = mul(twice_each(pairs < 8 ? s8 : sin + i), load_f(kSigns));
    const mask16 m = first_lanes(2 * pairs);
    for (int32_t h = 0; h < heads; h++) {
      float* p = x + (int64_t)h * dim + 2 * i;
      const f32x16 v = load_f_mask(p, m);
      store_f_mask(p, m, fma(v, c, mul(swap_lanes<1>(v), s)));
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

template <class Kind>
static __attribute__((noinline)) void activate_of(const float* x, int32_t n, float* out) {
  int32_t k = 0;
  for (; k + 16 <= n; k += 16) store_f(out + k, Kind::of(load_f(x + k)));
  const mask16 m = first_lanes(n - k);
  if (k < n) store_f_mask(out + k, m, Kind::of(load_f_mask(x + k, m)));
}

static void activate(const float* x, int32_t activation, int32_t n, float* out) {
  switch (activation) {
    case kSilu: return activate_of<Silu>(x, n, out);
    case kGelu: return activate_of<Gelu>(x, n, out);
    case kGeluTanh: return activate_of<GeluTanh>(x, n, out);
    case kRelu: return activate_of<Relu>(x, n, out);
  }
}

template <class Kind>
static __attribute__((noinline)) void gate_mul_of(const float* gate, const float* up, int32_t n,
                                                  float* out) {
  int32_t k = 0;
  for (; k + 16 <= n; k += 16) store_f(out + k, Kind::gated(load_f(gate + k), load_f(up + k)));
  const mask16 m = first_lanes(n - k);
  if (k < n)
    store_f_mask(out + k, m, Kind::gated(load_f_mask(gate + k, m), load_f_mask(up + k, m)));
}

static void gate_mul(const float* gate, const float* up, int32_t activation, int32_t n,
                     float* out) {
  switch (activation) {
    case kSilu: return gate_mul_of<Silu>(gate, up, n, out);
    case kGelu: return gate_mul_of<Gelu>(gate, up, n, out);
    case kGeluTanh: return gate_mul_of<GeluTanh>(gate, up, n, out);
    case kRelu: return gate_mul_of<Relu>(gate, up, n, out);
    case kClampedGlu: return gate_mul_of<ClampedGlu>(gate, up, n, out);
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

static __attribute__((noinline)) void clamp(const float* x, float limit, int32_t n, float* out) {
  const f32x16 high = set1_f(limit), low = set1_f(-limit);
  for_row(n, [&](auto at, int32_t k, mask16 m) {
    // min and max return their second value if one is a NaN
    at.store(out + k, m, max(low, min(high, at.load(x + k, m))));
  });
}

static __attribute__((noinline)) void add_scaled(const float* x, float factor, int32_t n,
                                                 float* out) {
  const f32x16 f = set1_f(factor);
  for_row(n, [&](auto at, int32_t k, mask16 m) {
    at.store(out + k, m, fma(at.load(x + k, m), f, at.load(out + k, m)));
  });
}

static const RowKernels kRows = {
    .norm = norm,
    .rope = rope,
    .activate = activate,
    .gate_mul = gate_mul,
    .add = add_rows,
    .scale = scale,
    .clamp = clamp,
    .add_scaled = add_scaled,
    .route = route,
    .softcap = softcap,
    .summarize_tile = summarize_tile,
    .merge_summaries = merge_summaries,
    .edit_tile = edit_tile,
    .best_tile = best_tile,
    .top_k_tile = top_k_tile,
    .merge_top_k = merge_top_k,
    .sample = sample,
    .draw = draw,
};

const RowKernels* row_kernels() { return &kRows; }

}  // namespace octavo::OCTAVO_ISA
