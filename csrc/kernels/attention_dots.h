// attention_dots.h: the two products of attention over bytes of K and V, in whole numbers.
//
// With k and v the bytes less 128, q (of a rotated row) and W whole numbers, all within a tile of
// 64 tokens:
//   score[t] = float(sum over d of q[d] k[t][d]) * scale of k[t] * scale of q
//   w[t] = p[t] * scale of v[t], 0 if that is NaN;  scale of W = max(w) / 32512
//   W[t] = w[t] * (32512 / max(w)) to the nearest, ties to even
//   o[d] = fma(float(sum over t of W[t] v[t][d]), scale of W, o[d] * alpha)
// W goes in as two signed bytes, 256 * high + low. Sums of whole numbers have no order and fit
// int32, so that a row's bits do not depend on how a level multiplies, nor on the rows and tokens
// beside it: a token of weight 0 adds nothing, whatever its bytes are.
#pragma once
#include "kernels/attention_chain.h"
#include "kernels/attention_digits.h"

namespace octavo::OCTAVO_ISA {

// A value that the compiler knows nothing about. Where it knows the zeros that sums begin with, gcc
// 12 copies each sum before and after each of its dots.
OCTAVO_INLINE void forget(i32x16& v) {
#if OCTAVO_LEVEL >= OCTAVO_LEVEL_avx512
  __asm__("" : "+v"(v));
#elif OCTAVO_LEVEL >= OCTAVO_LEVEL_avx2
  __asm__("" : "+x"(v.lo), "+x"(v.hi));
#else
  (void)v;
#endif
}
template <int M, int R> OCTAVO_INLINE void forget(i32x16 (&sums)[M][R]) {
#pragma GCC unroll 16
  for (int m = 0; m < M; m++)
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) forget(sums[m][r]);
}
template <int M, int R> OCTAVO_INLINE void begin_sums(i32x16 (&sums)[M][R]) {
#pragma GCC unroll 16
  for (int m = 0; m < M; m++)
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) sums[m][r] = zero_i();
  forget(sums);
}

// Steps of a loop that are written out: with 32 registers addresses cost less so.
constexpr int kDotSteps = OCTAVO_LEVEL >= OCTAVO_LEVEL_avx512 ? 4 : 1;

// score[m][16 * r + lane] for R times 16 tokens; q is packed [step of 4 d][M], then -128 times the
// sum and the scale of each row.
template <int M, int R, bool kAhead>
OCTAVO_INLINE void dot_scores_of(Addresses k, Addresses ahead, const int32_t* q, int k_dim,
                                 float* score) {
  const int steps = k_dim / 4;
  const int32_t* bias = q + steps * M;
  i32x16 acc[M][R];
  begin_sums(acc);
  for (int step = 0; step < steps; step += 4)
#pragma GCC unroll kDotSteps
    for (int i = step; i < step + 4; i++) {
      i32x16 kv[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; r++) {
        kv[r] = load_i(k[r] + (int64_t)i * 64);
        if constexpr (kAhead) __builtin_prefetch(ahead[r] + (int64_t)i * 64, 0, 2);
      }
#pragma GCC unroll 16
      for (int m = 0; m < M; m++)
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) acc[m][r] = dot_u8s8(acc[m][r], kv[r], set1_i(q[i * M + m]));
    }
  const float* q_scale = (const float*)(bias + M);
#pragma GCC unroll 4
  for (int r = 0; r < R; r++) {
    const f32x16 k_scale = load_f((const float*)(k[r] + (int64_t)steps * 64));
    if constexpr (kAhead) __builtin_prefetch(ahead[r] + (int64_t)steps * 64, 0, 2);
#pragma GCC unroll 16
    for (int m = 0; m < M; m++)
      store_f(score + m * kTile + r * 16,
              mul(mul(to_float(add_i(acc[m][r], set1_i(bias[m]))), k_scale), set1_f(q_scale[m])));
  }
}

// Scores of the units [s0, s1) of the tile.
template <int M, bool kAhead>
static __attribute__((noinline)) void dot_scores(Addresses k, Addresses ahead, int s0, int s1,
                                                 const void* q, int k_dim, float* score) {
  const auto* packed = (const int32_t*)q;
  int s = s0;
  if constexpr (panels_for(M) == 4)
    for (; s + 4 <= s1; s += 4)
      dot_scores_of<M, 4, kAhead>(k + s, ahead + s, packed, k_dim, score + s * 16);
  if constexpr (panels_for(M) >= 2)
    for (; s + 2 <= s1; s += 2)
      dot_scores_of<M, 2, kAhead>(k + s, ahead + s, packed, k_dim, score + s * 16);
  for (; s < s1; s++) dot_scores_of<M, 1, kAhead>(k + s, ahead + s, packed, k_dim, score + s * 16);
}

// acc[m][r] += one digit of the weights of the units [s0, s1) times V at d .. d + 16R.
template <int M, int R, bool kAhead>
OCTAVO_INLINE void dot_digit(i32x16 (&acc)[M][R], Addresses v, Addresses ahead, int s0, int s1,
                             const int8_t* digit, int v_dim, int d) {
  constexpr int kRow = sizeof(Digits) / 4;
  const auto* words = (const int32_t*)digit;
  const int64_t stride = (int64_t)v_dim * 4;
  for (int s = s0; s < s1; s++) {
    const uint8_t *row = v[s] + d * 4, *next = kAhead ? ahead[s] + d * 4 : row;
#pragma GCC unroll kDotSteps
    for (int i = 0; i < 4; i++) {
      i32x16 kv[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; r++) {
        kv[r] = load_i(row + i * stride + r * 64);
        forget(kv[r]);  // or it is loaded again for each row
        if constexpr (kAhead) __builtin_prefetch(next + i * stride + r * 64, 0, 2);
      }
#pragma GCC unroll 16
      for (int m = 0; m < M; m++)
#pragma GCC unroll 4
        for (int r = 0; r < R; r++)
          acc[m][r] = dot_u8s8(acc[m][r], kv[r], set1_i(words[m * kRow + i * 4 + s]));
    }
  }
  forget(acc);
}

// o[m][d .. d + 16R) over the units [s0, s1). V goes by twice, once for each digit: with both at a
// time half as many rows would have their sums in registers.
template <int M, int R, bool kAhead>
OCTAVO_INLINE void dot_values_of(Addresses v, Addresses ahead, int s0, int s1, const Digits* p,
                                 const float* alpha, int v_dim, int d, float* o) {
  i32x16 acc[M][R];
  begin_sums(acc);
  dot_digit<M, R, kAhead>(acc, v, ahead, s0, s1, p->high, v_dim, d);
#pragma GCC unroll 16
  for (int m = 0; m < M; m++)
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) acc[m][r] = add_i(shift_left<8>(acc[m][r]), set1_i(p[m].bias));
  forget(acc);
  dot_digit<M, R, false>(acc, v, v, s0, s1, p->low, v_dim, d);
#pragma GCC unroll 16
  for (int m = 0; m < M; m++)
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
      float* out = o + m * v_dim + d + r * 16;
      store_f(out,
              fma(to_float(acc[m][r]), set1_f(p[m].scale), mul(load_f(out), set1_f(alpha[m]))));
    }
}

template <int M, bool kAhead>
static __attribute__((noinline)) void dot_values(Addresses v, Addresses ahead, int s0, int s1,
                                                 const void* p, const float* alpha, int v_dim,
                                                 float* o) {
  const auto* digits = (const Digits*)p;
  if constexpr (kAhead)
    for (int s = s0; s < s1; s++) __builtin_prefetch(ahead[s] + (int64_t)v_dim * 16, 0, 2);
  int d = 0;
  if constexpr (panels_for(M) == 4)
    for (; d + 64 <= v_dim; d += 64)
      dot_values_of<M, 4, kAhead>(v, ahead, s0, s1, digits, alpha, v_dim, d, o);
  if constexpr (panels_for(M) >= 2)
    for (; d + 32 <= v_dim; d += 32)
      dot_values_of<M, 2, kAhead>(v, ahead, s0, s1, digits, alpha, v_dim, d, o);
  for (; d < v_dim; d += 16)
    dot_values_of<M, 1, kAhead>(v, ahead, s0, s1, digits, alpha, v_dim, d, o);
}

}  // namespace octavo::OCTAVO_ISA
