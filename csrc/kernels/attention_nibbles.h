// attention_nibbles.h: the two products of attention over int4 pages, in whole numbers.
//
// A group is 32 d of a row (16 at the end, where the head dim asks for it) with a scale s and a min
// m: a value is s * n + m, n 0..15. With q whole numbers (of a rotated row) and p the weights of a
// tile of 64 tokens:
//   x = fma(s[t], float(sum over d of q[d] n[t][d]), fma(m[t], sum over d of q[d], x)), group
//   after group from x = 0;  score[t] = x * scale of q
//   w[t] = p[t] * s[t], and of it W as in attention_dots.h, for each group
//   o[d] = fma(float(sum over t of W[t] n[t][d]), scale of W, o[d] * alpha + sum over t of p[t]
//   m[t])
// The sum of p m is of floats: 16 lanes, sixteen tokens after sixteen, then a tree. A token of
// weight 0 adds nothing to either, whatever its bytes are.
#pragma once
#include "kernels/attention_dots.h"

namespace octavo::OCTAVO_ISA {

// A group of a unit: 4 lines of nibbles, 16 scales, 16 mins. A byte holds d (low) and d + 16.
constexpr int kNibbleGroup = 32, kNibbleGroupBytes = 320, kNibbleScales = 256, kNibbleMins = 288;

OCTAVO_INLINE i32x16 low_nibbles(i32x16 bytes) { return and_i(bytes, set1_i(0x0f0f0f0f)); }
OCTAVO_INLINE i32x16 high_nibbles(i32x16 bytes) { return low_nibbles(shift_right16<4>(bytes)); }

// Units at a time that leave registers for their nibbles, too.
constexpr int nibble_panels_for(int rows) {
  constexpr int kRoom = OCTAVO_LEVEL >= OCTAVO_LEVEL_avx512 ? kAccumulators + 2 : kAccumulators;
  return (rows + 1) * 4 <= kRoom ? 4 : (rows + 1) * 2 <= kRoom ? 2 : 1;
}

// acc[m][r] = q times n of one group, of its kHalves times 16 d; q begins with the group's.
template <int M, int R, int kHalves, bool kAhead>
OCTAVO_INLINE void dot_nibbles(i32x16 (&acc)[M][R], Addresses k, Addresses ahead, int64_t group,
                               const int32_t* q) {
#pragma GCC unroll kDotSteps
  for (int i = 0; i < 4; i++)
#pragma GCC unroll 2
    for (int half = 0; half < kHalves; half++) {
      i32x16 n[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; r++) {
        const i32x16 bytes = load_i(k[r] + group + i * 64);
        n[r] = half == 0 ? low_nibbles(bytes) : high_nibbles(bytes);
        forget(n[r]);
        if constexpr (kAhead)
          if (half == 0) __builtin_prefetch(ahead[r] + group + i * 64, 0, 2);
      }
#pragma GCC unroll 16
      for (int m = 0; m < M; m++)
#pragma GCC unroll 4
        for (int r = 0; r < R; r++)
          acc[m][r] = dot_u7s8(acc[m][r], n[r], set1_i(q[(half * 4 + i) * M + m]));
    }
  forget(acc);
}

// One group joins score[m][16 * r + lane]; `sums` are those of its q.
template <int M, int R, int kHalves, bool kAhead>
OCTAVO_INLINE void add_group_scores(Addresses k, Addresses ahead, int64_t group, const int32_t* q,
                                    const float* sums, float* score) {
  i32x16 acc[M][R];
  begin_sums(acc);
  dot_nibbles<M, R, kHalves, kAhead>(acc, k, ahead, group, q);
  forget_reads();  // or gcc keeps the scores of all groups, on the stack
#pragma GCC unroll 4
  for (int r = 0; r < R; r++) {
    const f32x16 scales = load_f16(k[r] + group + kNibbleScales),
                 mins = load_f16(k[r] + group + kNibbleMins);
    if constexpr (kAhead) __builtin_prefetch(ahead[r] + group + kNibbleScales, 0, 2);
#pragma GCC unroll 16
    for (int m = 0; m < M; m++) {
      float* x = score + m * kTile + r * 16;
      store_f(x, fma(scales, to_float(acc[m][r]), fma(mins, set1_f(sums[m]), load_f(x))));
    }
  }
}

// score[m][16 * r + lane] for R times 16 tokens; q is packed [step of 4 d][M], then [group][M] sums
// as floats, then the scale of each row. Between groups x is in `score`, for registers hold acc.
template <int M, int R, bool kAhead>
OCTAVO_INLINE void nibble_scores_of(Addresses k, Addresses ahead, const int32_t* q, int k_dim,
                                    float* score) {
  const float* sums = (const float*)(q + k_dim / 4 * M);
  for (int m = 0; m < M; m++)
    for (int r = 0; r < R; r++) store_f(score + m * kTile + r * 16, zero_f());
  int64_t group = 0;
  int d = 0;
  for (; d + kNibbleGroup <= k_dim; d += kNibbleGroup, group += kNibbleGroupBytes, sums += M)
    add_group_scores<M, R, 2, kAhead>(k, ahead, group, q + d / 4 * M, sums, score);
  if (d < k_dim) {
    add_group_scores<M, R, 1, kAhead>(k, ahead, group, q + d / 4 * M, sums, score);
    sums += M;
  }
  for (int m = 0; m < M; m++)
    for (int r = 0; r < R; r++) {
      float* x = score + m * kTile + r * 16;
      store_f(x, mul(load_f(x), set1_f(sums[m])));
    }
}

// Scores of the units [s0, s1) of the tile.
template <int M, bool kAhead>
static __attribute__((noinline)) void nibble_scores(Addresses k, Addresses ahead, int s0, int s1,
                                                    const void* q, int k_dim, float* score) {
  const auto* packed = (const int32_t*)q;
  int s = s0;
  if constexpr (nibble_panels_for(M) == 4)
    for (; s + 4 <= s1; s += 4)
      nibble_scores_of<M, 4, kAhead>(k + s, ahead + s, packed, k_dim, score + s * 16);
  if constexpr (nibble_panels_for(M) >= 2)
    for (; s + 2 <= s1; s += 2)
      nibble_scores_of<M, 2, kAhead>(k + s, ahead + s, packed, k_dim, score + s * 16);
  for (; s < s1; s++)
    nibble_scores_of<M, 1, kAhead>(k + s, ahead + s, packed, k_dim, score + s * 16);
}

// What V's product takes in one group: the rows' weights, and where the group is.
struct NibbleWeights {
  Digits rows[kPassRows];
  float mins[kPassRows];  // the sum of p m
  int dims;               // of the group, 32 or 16
};

// The weights p of a tile's units [s0, s1) times the scales of a group as digits, and the sum of
// them times its mins; v are the group's.
OCTAVO_INLINE void weigh_group(Addresses v, int s0, int s1, const float* p, Digits* digits,
                               float* mins) {
  f32x16 w[4], top = zero_f(), sum = zero_f();
#pragma GCC unroll 4
  for (int s = 0; s < 4; s++) {
    w[s] = zero_f();
    if (s < s0 || s >= s1) continue;
    const f32x16 weight = load_f(p + s * 16);
    w[s] = max(mul(weight, load_f16(v[s] + kNibbleScales)), zero_f());
    top = max(w[s], top);
    const f32x16 added = fma(weight, load_f16(v[s] + kNibbleMins), sum);
    sum = select(lt(zero_f(), weight), added, sum);
  }
  make_digits<store_digits>(w, reduce_max(top), digits);
  *mins = reduce_add(sum);
}

// acc[m][r * D + j] += digit j of the weights of the units [s0, s1) times half r of the group.
template <int M, int R, int D, bool kAhead>
OCTAVO_INLINE void add_nibbles(i32x16 (&acc)[M][R * D], Addresses v, Addresses ahead, int s0,
                               int s1, const int8_t* digit) {
  constexpr int kRow = sizeof(Digits) / 4, kDigit = kTile / 4;
  const auto* words = (const int32_t*)digit;
  for (int s = s0; s < s1; s++) {
#pragma GCC unroll kDotSteps
    for (int i = 0; i < 4; i++) {
      i32x16 bytes = load_i(v[s] + i * 64);
      forget(bytes);
      if constexpr (kAhead) __builtin_prefetch(ahead[s] + i * 64, 0, 2);
      const i32x16 n[2] = {low_nibbles(bytes), high_nibbles(bytes)};
#pragma GCC unroll 16
      for (int m = 0; m < M; m++)
#pragma GCC unroll 2
        for (int j = 0; j < D; j++)
#pragma GCC unroll 2
          for (int r = 0; r < R; r++)
            acc[m][r * D + j] =
                dot_u7s8(acc[m][r * D + j], n[r], set1_i(words[m * kRow + j * kDigit + i * 4 + s]));
    }
    if constexpr (kAhead) __builtin_prefetch(ahead[s] + kNibbleScales, 0, 2);
  }
  forget(acc);
}

// o[m][0 .. 16R) of a group. Where registers have room for both digits of every row, V goes by
// once.
template <int M, int R, bool kAhead>
OCTAVO_INLINE void nibble_values_of(Addresses v, Addresses ahead, int s0, int s1,
                                    const Digits* rows, const float* mins, const float* alpha,
                                    int v_dim, float* o) {
  i32x16 whole[M][R];
  if constexpr (M * R * 2 <= kAccumulators) {
    i32x16 acc[M][R * 2];
    begin_sums(acc);
    add_nibbles<M, R, 2, kAhead>(acc, v, ahead, s0, s1, rows->high);
#pragma GCC unroll 16
    for (int m = 0; m < M; m++)
#pragma GCC unroll 2
      for (int r = 0; r < R; r++)
        whole[m][r] = add_i(shift_left<8>(acc[m][2 * r]), acc[m][2 * r + 1]);
  } else {
    begin_sums(whole);
    add_nibbles<M, R, 1, kAhead>(whole, v, ahead, s0, s1, rows->high);
#pragma GCC unroll 16
    for (int m = 0; m < M; m++)
#pragma GCC unroll 2
      for (int r = 0; r < R; r++) whole[m][r] = shift_left<8>(whole[m][r]);
    forget(whole);
    add_nibbles<M, R, 1, false>(whole, v, v, s0, s1, rows->low);
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; m++)
#pragma GCC unroll 2
    for (int r = 0; r < R; r++) {
      float* out = o + m * v_dim + r * 16;
      const f32x16 before = add(mul(load_f(out), set1_f(alpha[m])), set1_f(mins[m]));
      store_f(out, fma(to_float(whole[m][r]), set1_f(rows[m].scale), before));
    }
}

// One group; v, ahead and o are the group's.
template <int M, bool kAhead>
static __attribute__((noinline)) void nibble_values(Addresses v, Addresses ahead, int s0, int s1,
                                                    const void* p, const float* alpha, int v_dim,
                                                    float* o) {
  const auto* weights = (const NibbleWeights*)p;
  // Where registers hold three rows, six go by in two times.
  constexpr int kRows = kByTerms && M > 3 ? M / 2 : M;
#pragma GCC unroll 2
  for (int m = 0; m < M; m += kRows) {
    const Digits* rows = weights->rows + m;
    const float* mins = weights->mins + m;
    float* out = o + (int64_t)m * v_dim;
    if (weights->dims == kNibbleGroup)
      nibble_values_of<kRows, 2, kAhead>(v, ahead, s0, s1, rows, mins, alpha + m, v_dim, out);
    else nibble_values_of<kRows, 1, kAhead>(v, ahead, s0, s1, rows, mins, alpha + m, v_dim, out);
  }
}

}  // namespace octavo::OCTAVO_ISA
