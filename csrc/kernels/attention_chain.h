// attention_chain.h: the two products of attention for formats whose values enter chains of float
// steps.
//
// Every template instance runs the same chain for a row, whatever rows stand beside it:
//   score[t] = chain over d (a step of F) from 0;   o[d] = o[d] * alpha, then a chain over the
//   tokens it sees.
// F is the format's KV (kv_traits.h), with a step of 16 lanes of 32 bits: its Vector, its Element
// of q or p, the kTokens of V (and d of K) that it takes, load, step, and keep, which clears what a
// row does not see of it. kAhead: for every line read, one of the next tile is prefetched (a burst
// of prefetches reaches half the bandwidth) and one of what is read half a tile on: it was asked
// for before, but a core that waits for many lines forgets prefetches. To L2, because L1 is full of
// the tile at work.
#pragma once
#include "kernels/attention_tile.h"

namespace octavo::OCTAVO_ISA {

constexpr int panels_for(int rows) {
  return rows * 4 <= kAccumulators ? 4 : rows * 2 <= kAccumulators ? 2 : 1;
}

// Few rows wait for memory. Lines that a core runs ahead to read then hold what prefetches need, so
// it runs less far if each row reads K again, from L1. (gcc would keep what it has read.)
constexpr bool reads_again(int rows, bool ahead) { return OCTAVO_BF16_DOTS && ahead && rows <= 4; }
OCTAVO_INLINE void forget_reads() { __asm__ volatile("" ::: "memory"); }

// Where 16 registers hold the sums, a vector of K or V is read and spread again for each float it
// stands for (a term of F's step, in the step's order), so that it takes one place and not four.
constexpr bool kByTerms = OCTAVO_LEVEL == OCTAVO_LEVEL_avx2 || OCTAVO_LEVEL == OCTAVO_LEVEL_avxvnni;

// sums[m][r] = term kTerm.. of a step: fma of what lies at `p` and of the element of each row.
template <class F, int M, int R, int kTerm = 0>
OCTAVO_INLINE void add_terms(f32x16 (&acc)[M][R], int r, const uint8_t* p,
                             const typename F::Element* e, int64_t stride) {
  if constexpr (kTerm < F::kTerms) {
    const f32x16 kv = F::template term<kTerm>(p);
#pragma GCC unroll 16
    for (int m = 0; m < M; m++)
      acc[m][r] = fma(kv, set1_f(F::template factor<kTerm>(e[m * stride])), acc[m][r]);
    forget_reads();
    add_terms<F, M, R, kTerm + 1>(acc, r, p, e, stride);
  }
}

// score[m][16 * r + lane] for R times 16 tokens; q is packed [step][M].
template <class F, int M, int R, bool kAhead>
OCTAVO_INLINE void scores_of(Addresses k, Addresses ahead, const typename F::Element* q, int steps,
                             float* score) {
  f32x16 acc[M][R];
#pragma GCC unroll 16
  for (int m = 0; m < M; m++)
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) acc[m][r] = zero_f();
  for (int i = 0; i < steps; i++) {
    typename F::Vector kv[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
      if constexpr (kAhead) {
        __builtin_prefetch(ahead[r] + (int64_t)i * 64, 0, 2);
        __builtin_prefetch(ahead[r + kSoon] + (int64_t)i * 64, 0, 2);
      }
      if constexpr (kByTerms) add_terms<F, M, R>(acc, r, k[r] + (int64_t)i * 64, q + i * M, 1);
      else if constexpr (!reads_again(M, kAhead)) kv[r] = F::load(k[r] + (int64_t)i * 64);
    }
    if constexpr (kByTerms) continue;
#pragma GCC unroll 16
    for (int m = 0; m < M; m++) {
      if constexpr (reads_again(M, kAhead)) forget_reads();
#pragma GCC unroll 4
      for (int r = 0; r < R; r++) {
        if constexpr (reads_again(M, kAhead)) kv[r] = F::load(k[r] + (int64_t)i * 64);
        acc[m][r] = F::step(acc[m][r], kv[r], q[i * M + m]);
      }
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; m++)
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) store_f(score + m * kTile + r * 16, acc[m][r]);
}

// Scores of the units [s0, s1) of the tile.
template <class F, int M, bool kAhead>
static __attribute__((noinline)) void tile_scores(Addresses k, Addresses ahead, int s0, int s1,
                                                  const void* q, int k_dim, float* score) {
  const auto* packed = (const typename F::Element*)q;
  const int steps = k_dim / F::kTokens;
  int s = s0;
  if constexpr (panels_for(M) == 4)
    for (; s + 4 <= s1; s += 4)
      scores_of<F, M, 4, kAhead>(k + s, ahead + s, packed, steps, score + s * 16);
  if constexpr (panels_for(M) >= 2)
    for (; s + 2 <= s1; s += 2)
      scores_of<F, M, 2, kAhead>(k + s, ahead + s, packed, steps, score + s * 16);
  for (; s < s1; s++) scores_of<F, M, 1, kAhead>(k + s, ahead + s, packed, steps, score + s * 16);
}

// o[m][d .. d + 16R) over V steps [begin, end) of the tile; p is [M][kTile * 4 bytes] of elements.
template <class F, int M, int R, bool kAhead>
OCTAVO_INLINE void values_of(Addresses v, Addresses ahead, int begin, int end,
                             const typename F::Element* p, const float* alpha, int v_dim, int d,
                             float* o) {
  constexpr int kSteps = 16 / F::kTokens, kRow = kTile * 4 / sizeof(typename F::Element);
  f32x16 acc[M][R];
#pragma GCC unroll 16
  for (int m = 0; m < M; m++)
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
      acc[m][r] = mul(load_f(o + m * v_dim + d + r * 16), set1_f(alpha[m]));
  for (int i = begin; i < end;) {
    const int stop = (i / kSteps + 1) * kSteps < end ? (i / kSteps + 1) * kSteps : end;
    const int64_t offset = (int64_t)(i % kSteps) * v_dim * 4 + d * 4;
    const uint8_t *row = v[i / kSteps] + offset, *next = kAhead ? ahead[i / kSteps] + offset : row,
                  *soon = kAhead ? ahead[i / kSteps + kSoon] + offset : row;
    for (; i < stop; i++, row += v_dim * 4, next += v_dim * 4, soon += v_dim * 4) {
      typename F::Vector kv[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; r++) {
        if constexpr (kAhead) {
          __builtin_prefetch(next + r * 64, 0, 2);
          __builtin_prefetch(soon + r * 64, 0, 2);
        }
        if constexpr (kByTerms) add_terms<F, M, R>(acc, r, row + r * 64, p + i, kRow);
        else kv[r] = F::load(row + r * 64);
      }
      if constexpr (kByTerms) continue;
#pragma GCC unroll 16
      for (int m = 0; m < M; m++)
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) acc[m][r] = F::step(acc[m][r], kv[r], p[m * kRow + i]);
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; m++)
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) store_f(o + m * v_dim + d + r * 16, acc[m][r]);
}

// Steps that every row of the pass sees whole.
template <class F, int M, bool kAhead>
static __attribute__((noinline)) void tile_values(Addresses v, Addresses ahead, int begin, int end,
                                                  const void* p, const float* alpha, int v_dim,
                                                  float* o) {
  const auto* weights = (const typename F::Element*)p;
  int d = 0;
  if constexpr (panels_for(M) == 4)
    for (; d + 64 <= v_dim; d += 64)
      values_of<F, M, 4, kAhead>(v, ahead, begin, end, weights, alpha, v_dim, d, o);
  if constexpr (panels_for(M) >= 2)
    for (; d + 32 <= v_dim; d += 32)
      values_of<F, M, 2, kAhead>(v, ahead, begin, end, weights, alpha, v_dim, d, o);
  for (; d < v_dim; d += 16)
    values_of<F, M, 1, kAhead>(v, ahead, begin, end, weights, alpha, v_dim, d, o);
}

// o[d .. d + 16R) of one row alone, over its steps [begin, end). A step of two tokens may hold one
// that the row does not see (outside [lo, hi)): its V is cleared, for 0 * NaN is NaN.
template <class F, int R>
OCTAVO_INLINE void row_values_of(Addresses v, int begin, int end, int lo, int hi,
                                 const typename F::Element* p, float alpha, int v_dim, int d,
                                 float* o) {
  constexpr int kSteps = 16 / F::kTokens;
  f32x16 acc[R];
#pragma GCC unroll 4
  for (int r = 0; r < R; r++) acc[r] = mul(load_f(o + d + r * 16), set1_f(alpha));
  for (int i = begin; i < end; i++) {
    const bool low = i * F::kTokens >= lo, high = i * F::kTokens + 1 < hi;
    const uint8_t* row = v[i / kSteps] + (int64_t)(i % kSteps) * v_dim * 4 + d * 4;
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
      acc[r] = F::step(acc[r], F::keep(F::load(row + r * 64), low, high), p[i]);
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; r++) store_f(o + d + r * 16, acc[r]);
}

template <class F>
static __attribute__((noinline)) void row_values(Addresses v, int begin, int end, int lo, int hi,
                                                 const void* p, float alpha, int v_dim, float* o) {
  const auto* weights = (const typename F::Element*)p;
  int d = 0;
  for (; d + 64 <= v_dim; d += 64)
    row_values_of<F, 4>(v, begin, end, lo, hi, weights, alpha, v_dim, d, o);
  for (; d < v_dim; d += 16)
    row_values_of<F, 1>(v, begin, end, lo, hi, weights, alpha, v_dim, d, o);
}

// The whole product of a tile. Steps that every row sees go to the kernel of that many rows, the
// others row by row.
template <class F>
static void add_chain_values(const Pass* pass, Tile* tile, const TileAddresses* at, int v_dim) {
  const int last = pass->kernels->rows - 1;
  // Steps that every row sees whole; lo and hi grow with the row.
  const int begin = (tile->lo[last] + F::kTokens - 1) / F::kTokens, end = tile->hi[0] / F::kTokens;
  if (begin >= end) {  // none: each row for itself
    for (int i = 0; i < pass->rows; i++)
      row_values<F>(at->v, tile->lo[i] / F::kTokens, (tile->hi[i] + F::kTokens - 1) / F::kTokens,
                    tile->lo[i], tile->hi[i], tile->p[i], tile->alpha[i], v_dim,
                    pass->o + i * v_dim);
    return;
  }
  for (int i = 0; i < pass->rows; i++) {
    if (tile->lo[i] / F::kTokens == begin) continue;
    row_values<F>(at->v, tile->lo[i] / F::kTokens, begin, tile->lo[i], kTile, tile->p[i],
                  tile->alpha[i], v_dim, pass->o + i * v_dim);
    tile->alpha[i] = 1.0f;
  }
  pass->kernels->values[at->ahead][F::kFormat](at->v, at->next_v, begin, end, tile->p, tile->alpha,
                                               v_dim, pass->o);
  for (int i = 0; i < pass->rows; i++) {
    const int row_end = (tile->hi[i] + F::kTokens - 1) / F::kTokens;
    if (row_end > end)
      row_values<F>(at->v, end, row_end, 0, tile->hi[i], tile->p[i], 1.0f, v_dim,
                    pass->o + i * v_dim);
  }
}

template <class F> struct Chain {
  template <int M, bool kAhead> static constexpr ScoresFn scores = tile_scores<F, M, kAhead>;
  template <int M, bool kAhead> static constexpr ValuesFn values = tile_values<F, M, kAhead>;
  static void add_values(const Pass* pass, Tile* tile, const TileAddresses* at, int, int,
                         int v_dim) {
    add_chain_values<F>(pass, tile, at, v_dim);
  }
};

}  // namespace octavo::OCTAVO_ISA
