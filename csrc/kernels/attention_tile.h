// attention_tile.h: the two products of attention over one tile of 64 tokens, for 1..kPassRows rows at once.
//
// A row is (query token, head). Every template instance runs the same chain for a row, whatever rows stand beside it:
//   score[t] = chain over d (pairs of d for bf16) from 0;   o[d] = o[d] * alpha, then a chain over the tokens it sees.
// Addresses come as one pointer for each 16 tokens (KVLayout's contiguous unit), so the block size does not show here.
// kAhead: `ahead` is the next tile, and one line of it is prefetched for every line read (a burst of prefetches reaches half
// the bandwidth); to L2, because L1 is full of the tile at work.
#pragma once
#include "kernels/attention.h"
#include "kernels/simd.h"

namespace octavo::OCTAVO_ISA {

// Accumulators that stay in registers: 24 of 32 zmm, 6 x 2 of 16 ymm, 3 x 4 of 16 xmm.
constexpr int kAccumulators = OCTAVO_LEVEL >= OCTAVO_LEVEL_avx512 ? 24 : OCTAVO_LEVEL >= OCTAVO_LEVEL_avx2 ? 6 : 3;
constexpr int kPassRows = OCTAVO_LEVEL >= OCTAVO_LEVEL_avx512 ? 12 : 3;
constexpr int kTile = kAttentionTile;

using Addresses = const uint8_t* const*;   // of up to 4 times 16 tokens

constexpr int panels_for(int rows) { return rows * 4 <= kAccumulators ? 4 : rows * 2 <= kAccumulators ? 2 : 1; }

// One step of a chain: two bf16 products, or one float32 product.
struct Bf16 {
  using Element = int32_t;
  using Vector = i32x16;
  static constexpr int kTokens = 2;   // of V in one step; also d of K
  OCTAVO_INLINE Vector load(const uint8_t* p) { return load_i(p); }
  OCTAVO_INLINE f32x16 step(f32x16 acc, Vector kv, Element e) { return dot_bf16(acc, kv, set1_i(e)); }
  OCTAVO_INLINE Vector keep(Vector kv, bool low, bool high) {
    return and_i(kv, set1_i((int32_t)((low ? 0xffffu : 0u) | (high ? 0xffff0000u : 0u))));
  }
};
struct F32 {
  using Element = float;
  using Vector = f32x16;
  static constexpr int kTokens = 1;
  OCTAVO_INLINE Vector load(const uint8_t* p) { return load_f((const float*)p); }
  OCTAVO_INLINE f32x16 step(f32x16 acc, Vector kv, Element e) { return fma(kv, set1_f(e), acc); }
  OCTAVO_INLINE Vector keep(Vector kv, bool, bool) { return kv; }
};

// score[m][16 * r + lane] for R times 16 tokens; q is packed [step][M].
template <class T, int M, int R, bool kAhead>
OCTAVO_INLINE void scores_of(Addresses k, Addresses ahead, const typename T::Element* q, int steps,
                             float* score) {
  f32x16 acc[M][R];
#pragma GCC unroll 16
  for (int m = 0; m < M; m++)
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) acc[m][r] = zero_f();
  for (int i = 0; i < steps; i++) {
    typename T::Vector kv[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
      kv[r] = T::load(k[r] + (int64_t)i * 64);
      if constexpr (kAhead) __builtin_prefetch(ahead[r] + (int64_t)i * 64, 0, 2);
    }
#pragma GCC unroll 16
    for (int m = 0; m < M; m++)
#pragma GCC unroll 4
      for (int r = 0; r < R; r++) acc[m][r] = T::step(acc[m][r], kv[r], q[i * M + m]);
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; m++)
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) store_f(score + m * kTile + r * 16, acc[m][r]);
}

// Scores of token sixteens [s0, s1) of the tile.
template <class T, int M, bool kAhead>
static __attribute__((noinline)) void tile_scores(Addresses k, Addresses ahead, int s0,
                                                  int s1, const void* q, int k_dim, float* score) {
  const auto* packed = (const typename T::Element*)q;
  const int steps = k_dim / T::kTokens;
  int s = s0;
  if constexpr (panels_for(M) == 4)
    for (; s + 4 <= s1; s += 4) scores_of<T, M, 4, kAhead>(k + s, ahead + s, packed, steps, score + s * 16);
  if constexpr (panels_for(M) >= 2)
    for (; s + 2 <= s1; s += 2) scores_of<T, M, 2, kAhead>(k + s, ahead + s, packed, steps, score + s * 16);
  for (; s < s1; s++) scores_of<T, M, 1, kAhead>(k + s, ahead + s, packed, steps, score + s * 16);
}

// o[m][d .. d + 16R) over V steps [begin, end) of the tile; p is [M][kTile] elements.
template <class T, int M, int R, bool kAhead>
OCTAVO_INLINE void values_of(Addresses v, Addresses ahead, int begin, int end,
                             const typename T::Element* p, const float* alpha, int v_dim, int d, float* o) {
  constexpr int kSteps = 16 / T::kTokens;
  f32x16 acc[M][R];
#pragma GCC unroll 16
  for (int m = 0; m < M; m++)
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) acc[m][r] = mul(load_f(o + m * v_dim + d + r * 16), set1_f(alpha[m]));
  for (int i = begin; i < end;) {
    const int stop = (i / kSteps + 1) * kSteps < end ? (i / kSteps + 1) * kSteps : end;
    const int64_t offset = (int64_t)(i % kSteps) * v_dim * 4 + d * 4;
    const uint8_t *row = v[i / kSteps] + offset, *next = kAhead ? ahead[i / kSteps] + offset : row;
    for (; i < stop; i++, row += v_dim * 4, next += v_dim * 4) {
      typename T::Vector kv[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; r++) {
        kv[r] = T::load(row + r * 64);
        if constexpr (kAhead) __builtin_prefetch(next + r * 64, 0, 2);
      }
#pragma GCC unroll 16
      for (int m = 0; m < M; m++)
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) acc[m][r] = T::step(acc[m][r], kv[r], p[m * kTile + i]);
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; m++)
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) store_f(o + m * v_dim + d + r * 16, acc[m][r]);
}

// Steps that every row of the pass sees whole.
template <class T, int M, bool kAhead>
static __attribute__((noinline)) void tile_values(Addresses v, Addresses ahead, int begin,
                                                  int end, const void* p, const float* alpha, int v_dim, float* o) {
  const auto* weights = (const typename T::Element*)p;
  int d = 0;
  if constexpr (panels_for(M) == 4)
    for (; d + 64 <= v_dim; d += 64) values_of<T, M, 4, kAhead>(v, ahead, begin, end, weights, alpha, v_dim, d, o);
  if constexpr (panels_for(M) >= 2)
    for (; d + 32 <= v_dim; d += 32) values_of<T, M, 2, kAhead>(v, ahead, begin, end, weights, alpha, v_dim, d, o);
  for (; d < v_dim; d += 16) values_of<T, M, 1, kAhead>(v, ahead, begin, end, weights, alpha, v_dim, d, o);
}

// o[d .. d + 16R) of one row alone, over its steps [begin, end). A step of two tokens may hold one that the row does not see
// (outside [lo, hi)): its V is cleared, for 0 * NaN is NaN.
template <class T, int R>
OCTAVO_INLINE void row_values_of(Addresses v, int begin, int end, int lo, int hi, const typename T::Element* p,
                                 float alpha, int v_dim, int d, float* o) {
  constexpr int kSteps = 16 / T::kTokens;
  f32x16 acc[R];
#pragma GCC unroll 4
  for (int r = 0; r < R; r++) acc[r] = mul(load_f(o + d + r * 16), set1_f(alpha));
  for (int i = begin; i < end; i++) {
    const bool low = i * T::kTokens >= lo, high = i * T::kTokens + 1 < hi;
    const uint8_t* row = v[i / kSteps] + (int64_t)(i % kSteps) * v_dim * 4 + d * 4;
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) acc[r] = T::step(acc[r], T::keep(T::load(row + r * 64), low, high), p[i]);
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; r++) store_f(o + d + r * 16, acc[r]);
}

template <class T>
static __attribute__((noinline)) void row_values(Addresses v, int begin, int end, int lo, int hi, const void* p,
                                                 float alpha, int v_dim, float* o) {
  const auto* weights = (const typename T::Element*)p;
  int d = 0;
  for (; d + 64 <= v_dim; d += 64) row_values_of<T, 4>(v, begin, end, lo, hi, weights, alpha, v_dim, d, o);
  for (; d < v_dim; d += 16) row_values_of<T, 1>(v, begin, end, lo, hi, weights, alpha, v_dim, d, o);
}

using ScoresFn = void (*)(Addresses k, Addresses ahead, int s0, int s1, const void* q, int k_dim, float* score);
using ValuesFn = void (*)(Addresses v, Addresses ahead, int begin, int end, const void* p, const float* alpha, int v_dim,
                          float* o);

struct TileKernels {  // indexed by [ahead][KVType]
  int rows;
  ScoresFn scores[2][2];
  ValuesFn values[2][2];
};
template <int M> constexpr TileKernels tile_kernels() {
  return {M,
          {{tile_scores<F32, M, false>, tile_scores<Bf16, M, false>},
           {tile_scores<F32, M, true>, tile_scores<Bf16, M, true>}},
          {{tile_values<F32, M, false>, tile_values<Bf16, M, false>},
           {tile_values<F32, M, true>, tile_values<Bf16, M, true>}}};
}
#if OCTAVO_LEVEL >= OCTAVO_LEVEL_avx512
static constexpr TileKernels kTileKernels[] = {tile_kernels<1>(), tile_kernels<2>(), tile_kernels<3>(),
                                               tile_kernels<4>(), tile_kernels<6>(), tile_kernels<8>(),
                                               tile_kernels<9>(), tile_kernels<12>()};
#else
static constexpr TileKernels kTileKernels[] = {tile_kernels<1>(), tile_kernels<2>(), tile_kernels<3>()};
#endif

// The smallest kernel for that many rows; the rows it has too many are copies whose results nobody reads.
OCTAVO_INLINE const TileKernels* tile_kernels_for(int rows) {
  const TileKernels* k = kTileKernels;
  while (k->rows < rows) k++;
  return k;
}

}  // namespace octavo::OCTAVO_ISA
