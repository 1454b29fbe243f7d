// matmul_group.h: a group of 32 k of R panels x M int8 rows, added to their sums.
//
// G says how the weights come into registers: one of matmul_formats.h, or of matmul_kinds.h where
// they are unpacked. Every G of a format runs the same chain of fmas.
#pragma once
#include "kernels/matmul_formats.h"
#include "kernels/matmul_sums.h"

namespace octavo::OCTAVO_ISA {

// A k4 step and the step four later share their bytes, so they are taken one after the other.
OCTAVO_INLINE constexpr int paired_step(int i) { return (i >> 1) | (i & 1) << 2; }

template <int R, int M, class G>
OCTAVO_INLINE void dot_step(const uint8_t* p, int64_t panel_stride, int g, int j, const int32_t* a,
                            int64_t stride, i32x16 (&dot)[R][M]) {
  i32x16 w[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) w[r] = G::dot_step(p + r * panel_stride, g, j);
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
    const i32x16 x = set1_i(a[j * stride + m]);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) dot[r][m] = G::dot(dot[r][m], w[r], x);
  }
}

template <int R, int M>
OCTAVO_INLINE void set_all(i32x16 v, i32x16 (&dot)[R][M]) {
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) dot[r][m] = v;
  }
}

// What dots begin with: the zero point times -sum(q).
template <class G>
OCTAVO_INLINE i32x16 start_of(Part part, const int32_t* a, int64_t stride, int m) {
  if constexpr (G::kZeroShift == 0 || G::kSigned) return zero_i();
  const i32x16 start = start_of_128(part, a, stride, m);
  if constexpr (G::kZeroShift == 7) return start;
  return shift_right_s<7 - G::kZeroShift>(start);  // exact: a multiple of 128
}

// The dots of a part of a group, zero points taken off. Integer sums: their order is free.
template <int R, int M, class G, Part kPart>
OCTAVO_INLINE void group_dots(const uint8_t* p, int64_t panel_stride, int g, const int32_t* a,
                              int64_t stride, i32x16 (&dot)[R][M]) {
  constexpr int kSteps = kPart == kWhole ? 8 : 4;
  constexpr int kRun = G::kPairSteps == 0 || G::kPairSteps > kSteps ? kSteps : G::kPairSteps;
  constexpr bool kPaired = kPart == kWhole && G::kPaired;
  i32x16 run[R][M];
#pragma GCC unroll 8
  for (int first = 0; first < kSteps; first += kRun) {
    set_all<R, M>(zero_i(), run);
    if constexpr (G::kPairSteps == 0) {
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) {
        const i32x16 start = start_of<G>(kPart, a, stride, m);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) run[r][m] = start;
      }
    }
#pragma GCC unroll 8
    for (int i = first; i < first + kRun; ++i)
      dot_step<R, M, G>(p, panel_stride, g,
                        kPaired ? paired_step(i) : i + (kPart == kHighHalf ? 4 : 0), a, stride,
                        run);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        if constexpr (G::kPairSteps == 0) dot[r][m] = run[r][m];
        else
          dot[r][m] =
              widen_pairs(first == 0 ? start_of<G>(kPart, a, stride, m) : dot[r][m], run[r][m]);
      }
    }
  }
}

template <int R, int M, class G>
OCTAVO_INLINE void add_group(const uint8_t* p, int64_t panel_stride, int g, const int32_t* a,
                             int64_t stride, f32x16 (&acc)[R][M]) {
  i32x16 dot[R][M];
  f32x16 ws[R];
  group_dots<R, M, G, kWhole>(p, panel_stride, g, a, stride, dot);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) ws[r] = G::scale(p + r * panel_stride, g);
  add_scaled<R, M>(dot, ws, a, stride, acc);
  if constexpr (G::kMin) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const f32x16 min = G::min(p + r * panel_stride, g);
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) acc[r][m] = fma(min, am_of(kWhole, a, stride, m), acc[r][m]);
    }
  }
}

// A scale for every 16 k: steps 0..3, then steps 4..7.
template <int R, int M, class G, Part kPart>
OCTAVO_INLINE void add_half(const uint8_t* p, int64_t panel_stride, int g, const int32_t* a,
                            int64_t stride, f32x16 (&acc)[R][M]) {
  i32x16 dot[R][M];
  f32x16 ws[R];
  group_dots<R, M, G, kPart>(p, panel_stride, g, a, stride, dot);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) ws[r] = G::half_scale(p + r * panel_stride, 2 * g + kPart);
  add_scaled<R, M>(dot, ws, a, stride, acc);
  if constexpr (G::kMin) {
    f32x16 less[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) less[r] = G::half_less(p + r * panel_stride, 2 * g + kPart);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const f32x16 am = am_of(kPart, a, stride, m);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) acc[r][m] = fma(less[r], am, acc[r][m]);
    }
  }
}

}  // namespace octavo::OCTAVO_ISA
