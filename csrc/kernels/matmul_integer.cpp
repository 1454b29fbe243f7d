// matmul_integer.cpp: packed integer weights x int8 activations, one unit of R panels x M tokens
// over all of K.
//
// Every (R, M) runs the same chain of fmas for each of its sums, so bits do not depend on how the
// work was cut.
#include "kernels/matmul_group.h"

namespace octavo::OCTAVO_ISA {

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
