// matmul_integer.cpp: packed integer weights x int8 activations, one unit of R panels x M tokens over all of K.
//
// Every (R, M) runs the same chain of fmas for each of its sums, so bits do not depend on how the work was cut.
#include "matmul_formats.h"

namespace octavo::OCTAVO_ISA {

// Rows of an activation group, in units of `stride` int32.
enum ActRow { kScaleRow = 8, kNegSumRow = 9, kNegLowRow = 10, kAmRow = 11, kGroupRows = 12 };

// A k4 step and the step four later share their bytes, so they are taken one after the other.
OCTAVO_INLINE constexpr int paired_step(int i) { return (i >> 1) | (i & 1) << 2; }

template <int R, int M, class G>
OCTAVO_INLINE void dot_step(const uint8_t* p, int64_t panel_stride, int g, int j, const int32_t* a, int64_t stride,
                            i32x16 (&dot)[R][M]) {
  i32x16 w[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) w[r] = G::step(p + r * panel_stride, g, j);
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
    const i32x16 x = set1_i(a[j * stride + m]);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) dot[r][m] = G::dot(dot[r][m], w[r], x);
  }
}

template <int R, int M>
OCTAVO_INLINE void start_dots(const i32x16 (&start)[M], i32x16 (&dot)[R][M]) {
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) dot[r][m] = start[m];
  }
}

template <int R, int M>
OCTAVO_INLINE void add_scaled(const i32x16 (&dot)[R][M], const f32x16 (&ws)[R], const int32_t* a, int64_t stride,
                              f32x16 (&acc)[R][M]) {
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
    const f32x16 as = as_float(set1_i(a[kScaleRow * stride + m]));
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) acc[r][m] = fma(to_float(dot[r][m]), mul(ws[r], as), acc[r][m]);
  }
}

template <int R, int M, class G>
OCTAVO_INLINE void add_group(const uint8_t* p, int64_t panel_stride, int g, const int32_t* a, int64_t stride,
                             f32x16 (&acc)[R][M]) {
  i32x16 start[M], dot[R][M];
  f32x16 ws[R];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
    start[m] = G::kZeroShift ? shift_left<G::kZeroShift>(set1_i(a[kNegSumRow * stride + m])) : zero_i();
  start_dots<R, M>(start, dot);
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i)
    dot_step<R, M, G>(p, panel_stride, g, G::kHighBits || G::kLayout.group_quants == 256 ? paired_step(i) : i, a, stride, dot);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) ws[r] = G::scale(p + r * panel_stride, g);
  add_scaled<R, M>(dot, ws, a, stride, acc);
  if constexpr (G::kMin) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const f32x16 min = G::min(p + r * panel_stride, g);
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) acc[r][m] = fma(min, as_float(set1_i(a[kAmRow * stride + m])), acc[r][m]);
    }
  }
}

// W6K has a scale for every 16 k: steps 0..3, then steps 4..7.
template <int R, int M, class G>
OCTAVO_INLINE void add_two_halves(const uint8_t* p, int64_t panel_stride, int g, const int32_t* a, int64_t stride,
                                  f32x16 (&acc)[R][M]) {
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    i32x16 start[M], dot[R][M];
    f32x16 ws[R];
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const i32x16 low = set1_i(a[kNegLowRow * stride + m]);
      const i32x16 sum = half ? sub_i(set1_i(a[kNegSumRow * stride + m]), low) : low;
      start[m] = shift_left<G::kZeroShift>(sum);
    }
    start_dots<R, M>(start, dot);
#pragma GCC unroll 8
    for (int j = 0; j < 4; ++j) dot_step<R, M, G>(p, panel_stride, g, half * 4 + j, a, stride, dot);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) ws[r] = G::half_scale(p + r * panel_stride, 2 * g + half);
    add_scaled<R, M>(dot, ws, a, stride, acc);
  }
}

// The stream into L2 of what this core reads after this unit: the bytes of one group of every panel.
template <int R, class G>
OCTAVO_INLINE void prefetch_group(const uint8_t* p, int64_t panel_stride, int g) {
  constexpr int kBytes = G::kLayout.bytes / G::kLayout.groups;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int byte = 0; byte < kBytes; byte += 64) __builtin_prefetch(p + r * panel_stride + g * kBytes + byte, 0, 2);
  }
}

template <int32_t kFormat, int R, int M>
__attribute__((noinline)) static void tile(const uint8_t* p, int64_t panel_stride, int64_t groups, const int32_t* a,
                                           int64_t stride, int64_t prefetch, float* sums) {
  using G = Group<kFormat>;
  if (kMaxTokens == kMaxTile) stride = M;  // a unit takes whole tiles: offsets become constants
  f32x16 acc[R][M];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) acc[r][m] = zero_f();
  }
  for (int64_t first = 0; first < groups; first += G::kLayout.groups, p += G::kLayout.bytes) {
    const int count = groups - first < G::kLayout.groups ? (int)(groups - first) : G::kLayout.groups;
#pragma GCC unroll 1
    for (int g = 0; g < count; ++g, a += kGroupRows * stride) {
      if (prefetch) prefetch_group<R, G>(p + prefetch, panel_stride, g);
      if constexpr (kFormat == W6K) add_two_halves<R, M, G>(p, panel_stride, g, a, stride, acc);
      else add_group<R, M, G>(p, panel_stride, g, a, stride, acc);
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
  if constexpr (widest_unit(M) >= 4) {
    if (unit == 4) return tile<kFormat, 4, M>;
  }
  if constexpr (widest_unit(M) >= 2) {
    if (unit == 2) return tile<kFormat, 2, M>;
  }
  return tile<kFormat, 1, M>;
}

template <int32_t kFormat>
static TileFn pick_tokens(int unit, int tokens) {
  if constexpr (kMaxTokens >= 6) {
    if (tokens == 6) return pick_unit<kFormat, 6>(unit);
    if (tokens == 5) return pick_unit<kFormat, 5>(unit);
    if (tokens == 4) return pick_unit<kFormat, 4>(unit);
  }
  if (tokens == 3) return pick_unit<kFormat, 3>(unit);
  if (tokens == 2) return pick_unit<kFormat, 2>(unit);
  return pick_unit<kFormat, 1>(unit);
}

TileFn integer_tile(int32_t format, int unit, int tokens) {
  switch (format) {
    case W8: return pick_tokens<W8>(unit, tokens);
    case W4S: return pick_tokens<W4S>(unit, tokens);
    case W4A: return pick_tokens<W4A>(unit, tokens);
    case W5S: return pick_tokens<W5S>(unit, tokens);
    case W5A: return pick_tokens<W5A>(unit, tokens);
    case W4K: return pick_tokens<W4K>(unit, tokens);
    case W5K: return pick_tokens<W5K>(unit, tokens);
    default: return pick_tokens<W6K>(unit, tokens);
  }
}

}  // namespace octavo::OCTAVO_ISA
