// sample.cpp: draws a token from one row of logits. The definition is beside RowKernels::sample in
// rows.h.
//
// Weights are integers, so every sum is exact. A cut (top_k, top_p) never sorts: a histogram over
// log-probability finds the bin in which the cut falls, and quickselect finds the token inside that
// bin.
#include "kernels/simd.h"

#include "kernels/exp.h"
#include "kernels/logits.h"
#include "kernels/rows_parts.h"
#include "kernels/top_keys.h"

namespace octavo::OCTAVO_ISA {

static constexpr float kOne = 1073741824.0f;  // weight of the best token
static constexpr int32_t kBins =
    512;  // a weight above 0 lies within 2^31 of the best: 31 * 16 bins
static constexpr float kBinsPerOctave = 16.0f;

struct Draw {
  const float* logits;
  int32_t n;
  float best;     // largest logit
  float octaves;  // log2(e) / temperature: from a difference of logits to one of log2 probabilities
  int32_t* weights;  // (n rounded up to 16), 0 = cannot be drawn
  uint64_t* keys;
};

// -inf and NaN logits get -inf here, and so weight 0; a +inf logit is its own maximum.
OCTAVO_INLINE f32x16 log2_probability(const Draw* d, f32x16 logit) {
  const f32x16 difference = sub(logit, set1_f(d->best));
  const f32x16 at_best =
      select(lt(logit, set1_f(d->best)), mul(difference, set1_f(d->octaves)), zero_f());
  return select(lt(set1_f(kMinusInf), logit), at_best, set1_f(kMinusInf));
}
OCTAVO_INLINE uint32_t drawable(const Draw* d, int32_t i) {
  return lane_bits(lt(zero_f(), to_float(load_i(d->weights + i))));
}

static __attribute__((noinline)) void weigh(const Draw* d, float min_p) {
  for (int32_t i = 0; i < d->n; i += 16) {
    const f32x16 p = exp2_below_127(log2_probability(d, load_logits(d->logits, i, d->n)));
    const f32x16 kept = select(lt(p, set1_f(min_p)), zero_f(), p);
    store_i(d->weights + i, to_int(mul(kept, set1_f(kOne))));
  }
}

// Sum of the weights of tokens [i, end). Upper and lower 15 bits apart: each lane's sum stays below
// 2^31.
static int64_t weight_of_range(const int32_t* weights, int32_t i, int32_t end) {
  i32x16 high = zero_i(), low = zero_i();
  for (; i < end; i += 16) {
    const i32x16 w = load_i(weights + i);
    high = add_i(high, shift_right_u<15>(w));
    low = add_i(low, and_i(w, set1_i(0x7fff)));
  }
  int32_t highs[16], lows[16];
  store_i(highs, high);
  store_i(lows, low);
  int64_t sum = 0;
  for (int lane = 0; lane < 16; lane++) sum += (int64_t)highs[lane] * 32768 + lows[lane];
  return sum;
}

OCTAVO_INLINE i32x16 bins_of(const Draw* d, int32_t i) {
  const f32x16 octaves = max(log2_probability(d, load_logits(d->logits, i, d->n)), set1_f(-31.0f));
  return to_int(mul(octaves, set1_f(-kBinsPerOctave)));
}

struct Cut {
  int32_t bin;     // everything in lower bins is kept
  int64_t target;  // what the tokens of this bin must still contribute
};

static Cut find_bin(const Draw* d, bool by_count, int64_t target) {
  int64_t mass[kBins] = {};
  for (int32_t i = 0; i < d->n; i += 16) {
    uint32_t bits = drawable(d, i);
    if (bits == 0) continue;
    int32_t bins[16];
    store_i(bins, bins_of(d, i));
    for (; bits; bits &= bits - 1) {
      const int lane = __builtin_ctz(bits);
      mass[bins[lane]] += by_count ? 1 : d->weights[i + lane];
    }
  }
  int32_t bin = 0;
  while (bin < kBins - 1 && mass[bin] < target) target -= mass[bin++];
  return {bin, target};
}

static int32_t collect_bin(const Draw* d, int32_t bin) {
  int32_t count = 0;
  for (int32_t i = 0; i < d->n; i += 16) {
    uint32_t bits = drawable(d, i);
    if (bits == 0) continue;
    int32_t bins[16];
    store_i(bins, bins_of(d, i));
    for (; bits; bits &= bits - 1) {
      const int lane = __builtin_ctz(bits);
      if (bins[lane] == bin) d->keys[count++] = top_key(d->logits[i + lane], i + lane);
    }
  }
  return count;
}

// Drops every token after `last` in the order of top_key.
static void drop_after(const Draw* d, uint64_t last) {
  const f32x16 floor = set1_f(key_logit(last));
  const int32_t token = key_token(last);
  for (int32_t i = 0; i < d->n; i += 16) {
    const f32x16 x = load_logits(d->logits, i, d->n), w = as_float(load_i(d->weights + i));
    const f32x16 not_below =
        select(lt(x, floor), zero_f(), w);                   // ties kept, for tokens up to `token`
    const f32x16 above = select(lt(floor, x), w, zero_f());  // ties dropped, for those after it
    store_i(d->weights + i, as_int(select(first_lanes(token + 1 - i), not_below, above)));
  }
}

// Keeps the smallest set, best first, that holds `target` tokens (by_count) or weight.
static __attribute__((noinline)) void keep_best(const Draw* d, bool by_count, int64_t target) {
  const Cut cut = find_bin(d, by_count, target);
  const int32_t count = collect_bin(d, cut.bin);
  if (count == 0) return;  // fewer tokens than asked for: keep all
  drop_after(d, cut_key(d->keys, count, by_count ? nullptr : d->weights, cut.target));
}

// The first token whose running weight exceeds r; r < total.
static __attribute__((noinline)) int32_t token_at(const Draw* d, int64_t r) {
  int32_t begin = 0;
  for (; begin + kVocabTile < d->n; begin += kVocabTile) {
    const int64_t weight = weight_of_range(d->weights, begin, begin + kVocabTile);
    if (r < weight) break;
    r -= weight;
  }
  int32_t i = begin;
  while (r >= d->weights[i]) r -= d->weights[i++];
  return i;
}

// The smallest integer >= share * total, at least 1.
static int64_t part_of(double share, int64_t total) {
  const double part = share * (double)total;
  const int64_t whole = (int64_t)part;
  const int64_t up = (double)whole < part ? whole + 1 : whole;
  return up < 1 ? 1 : up;
}

__attribute__((noinline)) int32_t sample(const float* logits, int32_t n, float temperature,
                                         int32_t top_k, float top_p, float min_p, double u,
                                         void* scratch) {
  const int64_t padded = (int64_t)(n + 15) / 16 * 16;
  const float octaves = 0x1.715476p+0f / temperature;
  Draw d = {logits,
            n,
            0.0f,
            octaves < 3.0e38f ? octaves : 3.0e38f,
            (int32_t*)((uint64_t*)scratch + padded),
            (uint64_t*)scratch};
  d.best = largest_logit(logits, n);
  if (d.best == kMinusInf) return -1;
  weigh(&d, min_p);
  if (top_k > 0 && top_k < n) keep_best(&d, true, top_k);
  int64_t total = weight_of_range(d.weights, 0, n);
  if (top_p < 1.0f) {
    keep_best(&d, false, part_of((double)top_p, total));
    total = weight_of_range(d.weights, 0, n);
  }
  const int64_t r = (int64_t)(u * (double)total);
  return token_at(&d, r < total ? r : total - 1);
}

}  // namespace octavo::OCTAVO_ISA
