// attention_softmax.h: online softmax in base 2, over the scores of one tile and over the chunks of
// a row.
//
// With c = scale * log2(e), all in float32:
//   m' = max(m, max(s) * c);  alpha = 2^(m - m');  p = 2^(fma(s, c, -m'));  l = l * alpha + p,
//   sixteen tokens after sixteen
// m is kept multiplied by c, so that alpha and p share the rounding of m. l is 16 lanes (token %
// 16), added once a chunk, and sums p before it becomes what V's format takes. A token that the row
// does not see has score -inf: p = 0 exactly, m and l do not move.
// With a softcap the scores are tanh(s * (scale / softcap)) and c = softcap * log2(e); all else is
// the same. A sink logit t is a last chunk with m = t * log2(e), l = 1 and no o.
// With slopes a score is raised, within a chunk, by what its key is before the last one there that
// the row sees, and m by what that key is before the row where the chunk is merged: near keys keep
// all their bits however far positions go, and a chunk's state is the same for all rows behind it.
#pragma once
#include "kernels/attention_group.h"
#include "kernels/exp.h"
#include "kernels/kv_traits.h"
#include "kernels/tanh.h"

namespace octavo::OCTAVO_ISA {

// Scores of tokens outside [lo, hi) become -inf, whatever they were.
OCTAVO_INLINE f32x16 only_visible(f32x16 score, int lo, int hi) {
  const f32x16 none = set1_f(-__builtin_inff());
  return select(first_lanes(lo), none, select(first_lanes(hi), score, none));
}

// Before tile_max, which makes -inf of what a row does not see.
static __attribute__((noinline)) void cap_scores(const Pass* pass, Tile* tile, int s0, int s1,
                                                 float inner) {
  for (int i = 0; i < pass->kernels->rows; i++)
    for (int s = s0; s < s1; s++) {
      float* score = tile->score[i] + s * 16;
      store_f(score, tanh_poly(mul(load_f(score), set1_f(inner))));
    }
}

// What `to` is behind `from`, times the slope; bias_unit makes it join scores before c.
OCTAVO_INLINE f32x16 bias_between(i32x16 from, i32x16 to, f32x16 slope, bool rounded) {
  if (!rounded) return mul(slope, to_float(sub_i(to, from)));
  const auto bf16 = [](f32x16 x) { return as_float(shift_left<16>(to_bf16_pair(x, zero_f()))); };
  return sub(bf16(mul(slope, bf16(to_float(to)))), bf16(mul(slope, bf16(to_float(from)))));
}
static float bias_unit(const AttentionArgs* a) {
  if (a->rounded_slopes) return a->softcap > 0.0f ? a->scale / a->softcap : 1.0f;
  return 1.0f / (a->softcap > 0.0f ? a->softcap : a->scale);
}
// The last position of the chunk, or the row's own if that is in it.
OCTAVO_INLINE int last_seen(int position, int chunk) {
  return least(position, (chunk + 1) * kAttentionChunk - 1);
}

static __attribute__((noinline)) void add_slopes(const Pass* pass, Tile* tile, int s0, int s1,
                                                 const AttentionArgs* a) {
  static constexpr int32_t kLanes[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const f32x16 unit = set1_f(bias_unit(a));
  for (int i = 0; i < pass->kernels->rows; i++) {
    const i32x16 from = set1_i(last_seen(pass->last[i], tile->begin / kAttentionChunk));
    for (int s = s0; s < s1; s++) {
      const i32x16 keys = add_i(set1_i(tile->begin + s * 16), load_i(kLanes));
      const f32x16 bias = bias_between(from, keys, set1_f(pass->slope[i]), a->rounded_slopes);
      float* score = tile->score[i] + s * 16;
      store_f(score, add(load_f(score), mul(bias, unit)));
    }
  }
}

// m over a chunk of `rows` rows at these positions.
static f32x16 seen_from_rows(f32x16 m, const AttentionArgs* a, const float* slopes,
                             const int32_t* positions, int rows, int chunk) {
  const float c = (a->softcap > 0.0f ? a->softcap : a->scale) * 1.44269504f;
  float slope[16] = {};
  int32_t from[16] = {}, to[16] = {};
  for (int i = 0; i < rows; i++) {
    slope[i] = slopes[i];
    from[i] = positions[i];
    to[i] = last_seen(positions[i], chunk);
  }
  const f32x16 bias = bias_between(load_i(from), load_i(to), load_f(slope), a->rounded_slopes);
  return add(m, mul(bias, set1_f(bias_unit(a) * c)));
}

OCTAVO_INLINE f32x16 max_few(const float (*top)[16], int rows) {
  float best[16] = {};
  for (int i = 0; i < rows; i++) best[i] = reduce_max(load_f(top[i]));
  return load_f(best);
}
#if OCTAVO_LEVEL >= OCTAVO_LEVEL_avx512
constexpr int kManyRows = 8;  // from which join_lanes is faster than a tree for each row
// Lane i is the largest of top[i], where no lane is NaN.
OCTAVO_INLINE f32x16 max_of_each(const float (*top)[16], int rows) {
  if (rows < kManyRows) return max_few(top, rows);
  return join_lanes(top, rows, [](f32x16 x, f32x16 y) { return max(x, y); });
}
#else
OCTAVO_INLINE f32x16 max_of_each(const float (*top)[16], int rows) { return max_few(top, rows); }
#endif

// Of four units, some of which are there; NaN does not count.
OCTAVO_INLINE f32x16 max_of_units(const float* score, int s0, int s1) {
  f32x16 top = set1_f(-__builtin_inff());
#pragma GCC unroll 4
  for (int s = 0; s < 4; s++)
    if (s >= s0 && s < s1) top = max(load_f(score + s * 16), top);
  return top;
}

static __attribute__((noinline)) void tile_max(Pass* pass, Tile* tile, int s0, int s1, float c) {
  alignas(64) float top[kPassRows][16];
  const int rows = pass->kernels->rows;
  for (int i = 0; i < rows; i++) {
    const int lo = tile->lo[i], hi = tile->hi[i];
    if (lo == 0 && hi == kTile) {
      store_f(top[i], max_of_units(tile->score[i], 0, 4));
      continue;
    }
    for (int s = s0; s < s1; s++) {
      float* score = tile->score[i] + s * 16;
      store_f(score, only_visible(load_f(score), lo - s * 16, hi - s * 16));
    }
    store_f(top[i], max_of_units(tile->score[i], s0, s1));
  }
  const f32x16 best = max_of_each(top, rows);
  const f32x16 before = load_f(pass->m), now = max(mul(best, set1_f(c)), before);
  store_f(pass->m, now);
  store_f(tile->alpha, exp2_below_127(sub(before, now)));
}

template <class F>
OCTAVO_INLINE void weigh_units(Pass* pass, Tile* tile, int s0, int s1, float c) {
  const f32x16 scale = set1_f(c);
  float minus[16];
  store_f(minus, sub(zero_f(), load_f(pass->m)));
  for (int i = 0; i < pass->kernels->rows; i++) {
    const f32x16 minus_m = set1_f(minus[i]);
    f32x16 l = mul(load_f(pass->lane_l[i]), set1_f(tile->alpha[i]));
#pragma GCC unroll 4
    for (int s = s0; s < s1; s++) {
      const f32x16 p = exp2_below_127(fma(load_f(tile->score[i] + s * 16), scale, minus_m));
      l = add(l, p);
      F::store_p(tile->p[i], s, p);
    }
    store_f(pass->lane_l[i], l);
  }
}
// Most tiles are whole.
template <class F>
static __attribute__((noinline)) void tile_weights(Pass* pass, Tile* tile, int s0, int s1,
                                                   float c) {
  if (s0 == 0 && s1 == 4) weigh_units<F>(pass, tile, 0, 4, c);
  else weigh_units<F>(pass, tile, s0, s1, c);
}

// One chunk's (m, l) of up to 16 rows joins their totals; the weights of the two o's are left in
// keep and join.
OCTAVO_INLINE void merge_weights(float* m, float* l, f32x16 chunk_m, f32x16 chunk_l, float* keep,
                                 float* join) {
  const f32x16 before = load_f(m), now = max(chunk_m, before);
  const f32x16 a = exp2_below_127(sub(before, now)), b = exp2_below_127(sub(chunk_m, now));
  store_f(m, now);
  store_f(l, fma(chunk_l, b, mul(load_f(l), a)));
  store_f(keep, a);
  store_f(join, b);
}

OCTAVO_INLINE void merge_values(float* o, const float* chunk_o, float keep, float join, int v_dim) {
  for (int d = 0; d < v_dim; d += 16)
    store_f(o + d, fma(load_f(chunk_o + d), set1_f(join), mul(load_f(o + d), set1_f(keep))));
}

// What the o of up to 16 rows is multiplied by in the end, whose sink logits join here.
OCTAVO_INLINE f32x16 last_factors(const float* m, const float* l, const float* sinks) {
  if (sinks == nullptr) return div(set1_f(1.0f), load_f(l));
  const f32x16 before = load_f(m), sink = mul(load_f(sinks), set1_f(1.44269504f));
  const f32x16 now = max(sink, before);
  const f32x16 keep = exp2_below_127(sub(before, now)), join = exp2_below_127(sub(sink, now));
  return div(keep, fma(load_f(l), keep, join));
}

OCTAVO_INLINE void scale_values(float* out, const float* o, float factor, int v_dim) {
  for (int d = 0; d < v_dim; d += 16) store_f(out + d, mul(load_f(o + d), set1_f(factor)));
}

}  // namespace octavo::OCTAVO_ISA
