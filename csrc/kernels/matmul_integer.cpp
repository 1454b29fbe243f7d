// matmul_integer.cpp: packed integer weights x int8 activations, one unit of R panels x M tokens
// over all of K.
//
// Every (R, M) runs the same chain of fmas for each of its sums, so bits do not depend on how the
// work was cut.
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
  constexpr bool kPaired = kPart == kWhole && G::kLayout.group_quants == 256;
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

// kStride: of a tile, where it is known.
template <int32_t kFormat, int R, int M, int kStride>
__attribute__((noinline)) static void tile(const uint8_t* p, int64_t panel_stride, int64_t groups,
                                           const int32_t* a, int64_t stride, Ahead ahead,
                                           float* sums) {
  using G = Group<kFormat>;
  if (kStride != 0) stride = kStride;  // offsets become constants
  f32x16 acc[R][M];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) acc[r][m] = zero_f();
  }
  for (int64_t first = 0; first < groups; first += G::kLayout.groups, p += G::kLayout.bytes) {
    const int count =
        groups - first < G::kLayout.groups ? (int)(groups - first) : G::kLayout.groups;
#pragma GCC unroll 1
    for (int g = 0; g < count; ++g, a += kGroupRows * stride) {
      if constexpr (R == 1 && M <= 2) prefetch_stream<G>(p, g);
      else prefetch_group<G>(p, panel_stride, ahead, g);
      if constexpr (G::kHalves) {
        add_half<R, M, G, kLowHalf>(p, panel_stride, g, a, stride, acc);
        add_half<R, M, G, kHighHalf>(p, panel_stride, g, a, stride, acc);
      } else {
        add_group<R, M, G>(p, panel_stride, g, a, stride, acc);
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
static TileFn pick_unit(int unit, int size) {
  if constexpr (widest_unit(kFormat, M) >= 2) {
    if (unit == 2) return tile<kFormat, 2, M, M>;
  }
  if constexpr (kMaxTokens < kMaxTile) {
    if (M == kMaxTokens && size == kMaxTile) return tile<kFormat, 1, M, kMaxTile>;
    if (size != M) return tile<kFormat, 1, M, 0>;
  }
  return tile<kFormat, 1, M, M>;
}

template <int32_t kFormat>
static TileFn pick_tokens(int unit, int tokens, int size) {
  if constexpr (kMaxTokens >= 6) {
    if (tokens == 6) return pick_unit<kFormat, 6>(unit, size);
    if (tokens == 5) return pick_unit<kFormat, 5>(unit, size);
    if (tokens == 4) return pick_unit<kFormat, 4>(unit, size);
  }
  if (tokens == 3) return pick_unit<kFormat, 3>(unit, size);
  if (tokens == 2) return pick_unit<kFormat, 2>(unit, size);
  return pick_unit<kFormat, 1>(unit, size);
}

TileFn integer_tile(int32_t format, int unit, int tokens, int size) {
  switch (format) {
    case W8: return pick_tokens<W8>(unit, tokens, size);
    case W4S: return pick_tokens<W4S>(unit, tokens, size);
    case W4A: return pick_tokens<W4A>(unit, tokens, size);
    case W5S: return pick_tokens<W5S>(unit, tokens, size);
    case W5A: return pick_tokens<W5A>(unit, tokens, size);
    case W4K: return pick_tokens<W4K>(unit, tokens, size);
    case W5K: return pick_tokens<W5K>(unit, tokens, size);
    case W6K: return pick_tokens<W6K>(unit, tokens, size);
    case W2K: return pick_tokens<W2K>(unit, tokens, size);
    case W3K: return pick_tokens<W3K>(unit, tokens, size);
    case W4T: return pick_tokens<W4T>(unit, tokens, size);
    case W4TK: return pick_tokens<W4TK>(unit, tokens, size);
    default: return pick_tokens<W4F>(unit, tokens, size);
  }
}

}  // namespace octavo::OCTAVO_ISA
