// head.cpp: what the head does with logits of a vocabulary tile (cap, summary, edits, candidates)
// and how tiles are merged.
#include "kernels/simd.h"

#include "kernels/exp.h"
#include "kernels/logits.h"
#include "kernels/rows_parts.h"
#include "kernels/tanh.h"
#include "kernels/top_keys.h"

namespace octavo::OCTAVO_ISA {

static constexpr float kLog2e = 0x1.715476p+0f;

// The first index that is neither below `value` nor NaN: the first maximum, if `value` is the
// maximum. 0 if none.
static int32_t first_at(const float* logits, int32_t n, float value) {
  for (int32_t i = 0; i < n; i += 16) {
    const mask16 inside = first_lanes(n - i);
    const f32x16 x = load_f_mask(logits + i, inside);
    const uint32_t bits =
        lane_bits(inside) & ~lane_bits(lt(x, set1_f(value))) & ~lane_bits(is_nan(x));
    if (bits) return i + __builtin_ctz(bits);
  }
  return 0;
}

__attribute__((noinline)) void softcap(const float* x, float cap, int32_t n, float* out) {
  const f32x16 c = set1_f(cap);
  for (int32_t i = 0; i < n; i += 16) {
    const mask16 m = first_lanes(n - i);
    store_f_mask(out + i, m, mul(c, tanh_poly(div(load_f_mask(x + i, m), c))));
  }
}

__attribute__((noinline)) void summarize_tile(const float* logits, int32_t n, int32_t base,
                                              TileSummary* out) {
  const float largest = largest_logit(logits, n);
  const f32x16 from = set1_f(largest == kMinusInf ? 0.0f : largest);
  f32x16 sum = zero_f();
  for (int32_t i = 0; i < n; i += 16) {
    sum = add(sum, exp2_below_127(mul(sub(load_logits(logits, i, n), from), set1_f(kLog2e))));
  }
  out->max = largest;
  out->sum = reduce_add(sum);
  out->best = base + first_at(logits, n, largest);
}

static float exp_of(float x) {
  float lanes[16];
  store_f(lanes, exp2_below_127(mul(set1_f(x), set1_f(kLog2e))));
  return lanes[0];
}

__attribute__((noinline)) void merge_summaries(const TileSummary* tiles, int32_t count,
                                               TileSummary* out) {
  TileSummary whole = {tiles[0].max, 0.0f, tiles[0].best};
  for (int32_t t = 1; t < count; t++) {
    if (tiles[t].max > whole.max) whole = {tiles[t].max, 0.0f, tiles[t].best};
  }
  const float from = whole.max == kMinusInf ? 0.0f : whole.max;
  for (int32_t t = 0; t < count; t++) whole.sum += tiles[t].sum * exp_of(tiles[t].max - from);
  *out = whole;
}

static void apply_edits(float* logits, int32_t base, int32_t n, const Edit* edits,
                        int32_t num_edits) {
  int32_t low = 0, high = num_edits;
  while (low < high) {
    const int32_t middle = (low + high) / 2;
    if (edits[middle].token < base) low = middle + 1;
    else high = middle;
  }
  for (; low < num_edits && edits[low].token < base + n; low++) {
    const Edit e = edits[low];
    float* x = logits + (e.token - base);
    *x = (*x > 0.0f ? *x / e.scale : *x * e.scale) + e.add;
  }
}

// Bits of the mask (null: it allows all) for the 16 tokens from one on that is a multiple of 16.
OCTAVO_INLINE uint32_t allowed_of(const uint32_t* mask_words, int32_t token) {
  return mask_words == nullptr ? 0xffff : mask_words[token / 32] >> (token % 32) & 0xffff;
}

__attribute__((noinline)) void edit_tile(float* logits, int32_t base, int32_t n,
                                         const uint32_t* mask_words, const Edit* edits,
                                         int32_t num_edits) {
  apply_edits(logits, base, n, edits, num_edits);
  if (mask_words == nullptr) return;
  for (int32_t i = 0; i < n; i += 16) {
    const uint32_t allowed = allowed_of(mask_words, base + i);
    const uint32_t inside = n - i < 16 ? (1u << (n - i)) - 1 : 0xffff;
    store_f_mask(logits + i, lanes_of(inside & ~allowed), set1_f(kMinusInf));
  }
}

__attribute__((noinline)) void best_tile(const float* logits, int32_t base, int32_t n,
                                         const uint32_t* mask_words, TileSummary* out) {
  const auto load = [&](int32_t i, uint32_t allowed) {
    return select(lanes_of(allowed), load_logits(logits, i, n), set1_f(kMinusInf));
  };
  f32x16 largest = set1_f(kMinusInf);
  for (int32_t i = 0; i < n; i += 16) {
    const uint32_t allowed = allowed_of(mask_words, base + i);
    if (allowed) largest = max(load(i, allowed), largest);
  }
  *out = {reduce_max(largest), 0.0f, base};
  for (int32_t i = 0; i < n; i += 16) {
    const uint32_t allowed = allowed_of(mask_words, base + i);
    if (!allowed && out->max != kMinusInf) continue;
    const f32x16 x = load(i, allowed);
    const uint32_t bits =
        lane_bits(first_lanes(n - i)) & ~lane_bits(lt(x, set1_f(out->max))) & ~lane_bits(is_nan(x));
    if (bits) {
      out->best = base + i + __builtin_ctz(bits);
      return;
    }
  }
}

// ---- candidates
// Keys wait in a buffer four times as large as k; when it is full it is cut back to the k best, and
// the worst of them becomes the floor that later logits must exceed.
static constexpr int32_t kBuffer = 4 * kMaxTopK;

struct Candidates {
  uint64_t keys[kBuffer + 16];
  int32_t count;
  int32_t k;
  float floor;  // only logits above it can still be among the k best
};

static void cut_candidates(Candidates* c) {
  const uint64_t last = cut_key(c->keys, c->count, nullptr, c->k);
  int32_t kept = 0;
  for (int32_t i = 0; i < c->count; i++) {
    if (c->keys[i] >= last) c->keys[kept++] = c->keys[i];
  }
  c->count = kept;
  c->floor = key_logit(last);
}

OCTAVO_INLINE void offer(Candidates* c, float logit, int32_t token) {
  c->keys[c->count++] = top_key(logit, token);
  if (c->count >= kBuffer) cut_candidates(c);
}

static void write_best(Candidates* c, int32_t* ids, float* values) {
  if (c->count > c->k) cut_candidates(c);
  for (int32_t i = 1; i < c->count; i++) {
    const uint64_t key = c->keys[i];
    int32_t j = i;
    for (; j > 0 && c->keys[j - 1] < key; j--) c->keys[j] = c->keys[j - 1];
    c->keys[j] = key;
  }
  for (int32_t i = 0; i < c->k; i++) {
    ids[i] = i < c->count ? key_token(c->keys[i]) : -1;
    values[i] = i < c->count ? key_logit(c->keys[i]) : kMinusInf;
  }
}

static float just_below(float value) {
  if (value == kMinusInf) return value;
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  bits = value > 0.0f ? bits - 1 : value < 0.0f ? bits + 1 : 0x80000001u;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

// A logit is surely not among the k best if k others, the maxima of k separate lanes, are above it.
static float lane_floor(const float* logits, int32_t n, int32_t k) {
  f32x16 m[4] = {set1_f(kMinusInf), set1_f(kMinusInf), set1_f(kMinusInf), set1_f(kMinusInf)};
  for (int32_t i = 0; i < n; i += 64) {
    for (int32_t j = 0; j < 4; j++) {
      if (i + 16 * j < n) m[j] = max(load_logits(logits, i + 16 * j, n), m[j]);
    }
  }
  f32x16 low = min(min(m[0], m[1]), min(m[2], m[3]));
  if (k <= 32) low = min(max(m[0], m[1]), max(m[2], m[3]));
  if (k <= 16) low = max(max(m[0], m[1]), max(m[2], m[3]));
  return just_below(-reduce_max(sub(zero_f(), low)));
}

__attribute__((noinline)) void top_k_tile(const float* logits, int32_t n, int32_t base, int32_t k,
                                          int32_t* ids, float* values) {
  if (k == 0) return;
  Candidates c;
  c.count = 0;
  c.k = k;
  c.floor = lane_floor(logits, n, k);
  for (int32_t i = 0; i < n; i += 16) {
    uint32_t bits = lane_bits(lt(set1_f(c.floor), load_logits(logits, i, n)));
    for (; bits; bits &= bits - 1) {
      const int32_t j = i + __builtin_ctz(bits);
      offer(&c, logits[j], base + j);
    }
  }
  write_best(&c, ids, values);
}

__attribute__((noinline)) void merge_top_k(const int32_t* ids, const float* values, int32_t tiles,
                                           int32_t k, int32_t* out_ids, float* out_values) {
  if (k == 0) return;
  Candidates c;
  c.count = 0;
  c.k = k;
  c.floor = kMinusInf;
  for (int32_t t = 0; t < tiles; t++) {
    for (int32_t i = 0; i < k && values[t * k + i] > c.floor; i++)
      offer(&c, values[t * k + i], ids[t * k + i]);
  }
  write_best(&c, out_ids, out_values);
}

}  // namespace octavo::OCTAVO_ISA
