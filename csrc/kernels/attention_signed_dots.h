// attention_signed_dots.h: the two products of attention_dots.h where there is no dot of bytes: the
// same whole numbers, of bytes less 128.
//
// vpmaddubsw takes one factor without its sign, and is exact for |k| <= 128 and |q| <= 127. For the
// weights vpmaddwd takes W as it is, and V's bytes widened for all rows: half the work of two
// digits. Sums are short chains, so that six rows of 8 tokens (or d) at a time are enough, and all
// of them stay in registers.
#pragma once
#include "kernels/attention_chain.h"
#include "kernels/attention_digits.h"
#include "kernels/simd_bytes.h"

#if OCTAVO_LEVEL == OCTAVO_LEVEL_avx2

namespace octavo::OCTAVO_ISA {

OCTAVO_INLINE __m256i load_less_128(const uint8_t* p) {
  return _mm256_xor_si256(_mm256_loadu_si256((const __m256i*)p), _mm256_set1_epi8((char)0x80));
}

// Halves of 16 lanes that are summed at once.
constexpr int halves_for(int rows) { return rows * 2 <= kPassRows ? 2 : 1; }

// score[m][lane] of 8 * H tokens from `k` on; see dot_scores_of.
template <int M, int H, bool kAhead>
OCTAVO_INLINE void signed_scores_of(const uint8_t* k, const uint8_t* ahead, const int32_t* q,
                                    int steps, const float* k_scale, float* score) {
  __m256i acc[H][M];
#pragma GCC unroll 2
  for (int h = 0; h < H; h++)
#pragma GCC unroll 6
    for (int m = 0; m < M; m++) acc[h][m] = _mm256_setzero_si256();
#pragma GCC unroll 1
  for (int i = 0; i < steps; i++, k += 64, ahead += 64, q += M) {
    if constexpr (kAhead) __builtin_prefetch(ahead, 0, 2);
    __m256i kv[H], size[H];
#pragma GCC unroll 2
    for (int h = 0; h < H; h++) {
      kv[h] = load_less_128(k + h * 32);
      size[h] = _mm256_abs_epi8(kv[h]);
    }
#pragma GCC unroll 6
    for (int m = 0; m < M; m++) {
      const __m256i x = _mm256_set1_epi32(q[m]);
#pragma GCC unroll 2
      for (int h = 0; h < H; h++)
        acc[h][m] = dot_u7s8_half(acc[h][m], size[h], _mm256_sign_epi8(x, kv[h]));
    }
  }
  const float* q_scale = (const float*)(q + M);  // behind the sums of q
#pragma GCC unroll 2
  for (int h = 0; h < H; h++)
#pragma GCC unroll 6
    for (int m = 0; m < M; m++)
      _mm256_storeu_ps(score + m * kTile + h * 8,
                       _mm256_mul_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(acc[h][m]),
                                                   _mm256_loadu_ps(k_scale + h * 8)),
                                     _mm256_set1_ps(q_scale[m])));
}

template <int M, bool kAhead>
static __attribute__((noinline)) void signed_scores(Addresses k, Addresses ahead, int s0, int s1,
                                                    const void* q, int k_dim, float* score) {
  constexpr int kHalves = halves_for(M);
  const auto* packed = (const int32_t*)q;
  const int steps = k_dim / 4;
  for (int s = s0; s < s1; s++) {
    const auto* scales = (const float*)(k[s] + (int64_t)steps * 64);
    const uint8_t* next = kAhead ? ahead[s] : k[s];
    if constexpr (kAhead) __builtin_prefetch(next + (int64_t)steps * 64, 0, 2);
    signed_scores_of<M, kHalves, kAhead>(k[s], next, packed, steps, scales, score + s * 16);
    if constexpr (kHalves == 1)
      signed_scores_of<M, 1, false>(k[s] + 32, next, packed, steps, scales + 8, score + s * 16 + 8);
  }
}

// o[m][d .. d + 8H) over the units [s0, s1).
template <int M, int H, bool kAhead>
OCTAVO_INLINE void signed_values_of(Addresses v, Addresses ahead, int s0, int s1, const Digits* p,
                                    const float* alpha, int v_dim, int d, float* o) {
  constexpr int kRow = sizeof(Digits) / 4;
  const auto* words = (const int32_t*)p->high;
  const int64_t stride = (int64_t)v_dim * 4;
  __m256i acc[H][M];
#pragma GCC unroll 2
  for (int h = 0; h < H; h++)
#pragma GCC unroll 6
    for (int m = 0; m < M; m++) acc[h][m] = _mm256_setzero_si256();
  for (int s = s0; s < s1; s++) {
    const uint8_t *row = v[s] + d * 4, *next = kAhead ? ahead[s] + d * 4 : row;
#pragma GCC unroll 1
    for (int j = 0; j < 4; j++, row += stride, next += stride) {
      if constexpr (kAhead) __builtin_prefetch(next, 0, 2);
      const int32_t* pairs = words + pairs_at(s, j);
      __m256i even[H], odd[H];
#pragma GCC unroll 2
      for (int h = 0; h < H; h++) {
        const __m256i kv = load_less_128(row + h * 32);
        even[h] = _mm256_srai_epi16(_mm256_slli_epi16(kv, 8), 8);
        odd[h] = _mm256_srai_epi16(kv, 8);
      }
#pragma GCC unroll 6
      for (int m = 0; m < M; m++) {
        const __m256i first = _mm256_set1_epi32(pairs[m * kRow]),
                      second = _mm256_set1_epi32(pairs[m * kRow + 1]);
#pragma GCC unroll 2
        for (int h = 0; h < H; h++) {
          acc[h][m] = added(_mm256_add_epi32(acc[h][m], _mm256_madd_epi16(even[h], first)));
          acc[h][m] = added(_mm256_add_epi32(acc[h][m], _mm256_madd_epi16(odd[h], second)));
        }
      }
    }
  }
#pragma GCC unroll 2
  for (int h = 0; h < H; h++)
#pragma GCC unroll 6
    for (int m = 0; m < M; m++) {
      float* out = o + m * v_dim + d + h * 8;
      const __m256 before = _mm256_mul_ps(_mm256_loadu_ps(out), _mm256_set1_ps(alpha[m]));
      _mm256_storeu_ps(
          out, _mm256_fmadd_ps(_mm256_cvtepi32_ps(acc[h][m]), _mm256_set1_ps(p[m].scale), before));
    }
}

template <int M, bool kAhead>
static __attribute__((noinline)) void signed_values(Addresses v, Addresses ahead, int s0, int s1,
                                                    const void* p, const float* alpha, int v_dim,
                                                    float* o) {
  constexpr int kHalves = halves_for(M);
  const auto* weights = (const Digits*)p;
  if constexpr (kAhead)
    for (int s = s0; s < s1; s++) __builtin_prefetch(ahead[s] + (int64_t)v_dim * 16, 0, 2);
  for (int d = 0; d < v_dim; d += 16) {
    signed_values_of<M, kHalves, kAhead>(v, ahead, s0, s1, weights, alpha, v_dim, d, o);
    if constexpr (kHalves == 1)
      signed_values_of<M, 1, false>(v, ahead, s0, s1, weights, alpha, v_dim, d + 8, o);
  }
}

}  // namespace octavo::OCTAVO_ISA

#endif
