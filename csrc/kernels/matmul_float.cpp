// matmul_float.cpp: bf16 and f32 weights, one unit of R panels x M tokens: one chain over k for
// every sum.
#include "kernels/matmul_parts.h"

namespace octavo::OCTAVO_ISA {

constexpr int kLine = 64;  // bytes of 16 rows x one pair, or x one column

template <int32_t kFormat, int R, int M>
__attribute__((noinline)) static void tile(const uint8_t* p, int64_t panel_stride, int64_t length,
                                           const int32_t* a, int64_t stride, Ahead ahead,
                                           float* sums) {
  if (most_tokens(kFormat) == kMaxTile) stride = M;
  f32x16 acc[R][M];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) acc[r][m] = zero_f();
  }
  for (int64_t k = 0; k < length; ++k, p += kLine, a += stride) {
    i32x16 w[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) w[r] = load_i(p + r * panel_stride);
    for (int r = 0; r < ahead.panels; ++r)
      __builtin_prefetch(p + ahead.offset + r * panel_stride, 0, 2);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const i32x16 x = set1_i(a[m]);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        if constexpr (kFormat == BF16) acc[r][m] = dot_bf16(acc[r][m], w[r], x);
        else acc[r][m] = fma(as_float(w[r]), as_float(x), acc[r][m]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) store_f(sums + (r * M + m) * 16, acc[r][m]);
  }
}

template <int32_t kFormat, int M>
static TileFn pick_unit(int unit) {
  if constexpr (widest_unit(kFormat, M) >= 4) {
    if (unit == 4) return tile<kFormat, 4, M>;
  }
  if constexpr (widest_unit(kFormat, M) >= 2) {
    if (unit == 2) return tile<kFormat, 2, M>;
  }
  return tile<kFormat, 1, M>;
}

template <int32_t kFormat>
static TileFn pick_tokens(int unit, int tokens) {
  if constexpr (most_tokens(kFormat) >= 6) {
    if (tokens == 6) return pick_unit<kFormat, 6>(unit);
    if (tokens == 5) return pick_unit<kFormat, 5>(unit);
    if (tokens == 4) return pick_unit<kFormat, 4>(unit);
  }
  if (tokens == 3) return pick_unit<kFormat, 3>(unit);
  if (tokens == 2) return pick_unit<kFormat, 2>(unit);
  return pick_unit<kFormat, 1>(unit);
}

TileFn float_tile(int32_t format, int unit, int tokens) {
  return format == BF16 ? pick_tokens<BF16>(unit, tokens) : pick_tokens<F32>(unit, tokens);
}

}  // namespace octavo::OCTAVO_ISA
