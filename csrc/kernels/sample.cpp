// sample.cpp: draws a token from one row of logits. The definition is beside RowKernels::sample in
// rows.h.
//
// Weights are integers, so every sum is exact. Without a cut none is kept: a pass sums them up by
// vocabulary tiles, and the one tile that the draw falls into is weighed again. A cut (top_k,
// top_p) never sorts: a histogram over log-probability finds the bin in which the cut falls, and
// quickselect finds the token inside that bin.
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
  float min_p;
  // (n rounded up to 16), 0 = cannot be drawn; without a cut those of one tile
  int32_t* weights = nullptr;
  uint64_t* keys = nullptr;
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

// A sum of weights. Upper and lower 15 bits apart: each lane's sum stays below 2^31.
struct Sum {
  i32x16 high, low;
};
OCTAVO_INLINE void add_to(Sum* sum, i32x16 weights) {
  sum->high = add_i(sum->high, shift_right_u<15>(weights));
  sum->low = add_i(sum->low, and_i(weights, set1_i(0x7fff)));
}
static int64_t whole(const Sum* sum) {
  int32_t highs[16], lows[16];
  store_i(highs, sum->high);
  store_i(lows, sum->low);
  int64_t all = 0;
  for (int lane = 0; lane < 16; lane++) all += (int64_t)highs[lane] * 32768 + lows[lane];
  return all;
}

static int64_t weight_of_range(const int32_t* weights, int32_t i, int32_t end) {
  Sum sum = {zero_i(), zero_i()};
  for (; i < end; i += 16) add_to(&sum, load_i(weights + i));
  return whole(&sum);
}

// `kPlain`: the best logit is finite, and min_p drops nothing. Then nothing but NaN has to be told
// apart: max gives -40 for it, and 2^-40 is as much 0 in units of kOne as 0 is. No weight is above
// kOne, whatever the caller took for the likeliest token.
template <bool kPlain> OCTAVO_INLINE i32x16 weights_of(const Draw* d, f32x16 logit) {
  if (kPlain) {
    const f32x16 x = mul(sub(logit, set1_f(d->best)), set1_f(d->octaves));
    return to_int(exp2_in_range(min(max(x, set1_f(-40.0f)), zero_f()), kOne));
  }
  const f32x16 p = exp2_below_127(log2_probability(d, logit));
  const f32x16 kept = select(lt(p, set1_f(d->min_p)), zero_f(), p);
  return to_int(mul(kept, set1_f(kOne)));
}

template <bool kPlain>
static int64_t weigh(const Draw* d, const float* logits, int32_t n, int32_t* weights) {
  Sum sum = {zero_i(), zero_i()};
  for (int32_t i = 0; i < n; i += 16) {
    __builtin_prefetch(logits + i + 2 * kVocabTile);  // written by others too: two pages ahead
    const i32x16 w = weights_of<kPlain>(d, load_logits(logits, i, n));
    store_i(weights + i, w);
    add_to(&sum, w);
  }
  return whole(&sum);
}

// Writes the weights of the tile of tokens from `begin` on, and returns their sum.
static __attribute__((noinline)) int64_t weigh_tile(const Draw* d, int32_t begin,
                                                    int32_t* weights) {
  const int32_t n = d->n - begin < kVocabTile ? d->n - begin : kVocabTile;
  const Draw in_registers = *d;
  return d->min_p == 0.0f && d->best < -kMinusInf
             ? weigh<true>(&in_registers, d->logits + begin, n, weights)
             : weigh<false>(&in_registers, d->logits + begin, n, weights);
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

// The first place where the running sum exceeds r, which is less than the whole sum.
static int32_t place_of(const int32_t* weights, int64_t r) {
  int32_t i = 0;
  while (r >= weights[i]) r -= weights[i++];
  return i;
}

static int64_t place_in(int64_t total, double u) {
  const int64_t r = (int64_t)(u * (double)total);
  return r < total ? r : total - 1;
}

// The first token whose running weight exceeds r; r < total.
static __attribute__((noinline)) int32_t token_at(const Draw* d, int64_t r) {
  int32_t begin = 0;
  for (; begin + kVocabTile < d->n; begin += kVocabTile) {
    const int64_t weight = weight_of_range(d->weights, begin, begin + kVocabTile);
    if (r < weight) break;
    r -= weight;
  }
  return begin + place_of(d->weights + begin, r);
}

static Draw draw_from(const float* logits, int32_t n, int32_t likeliest, float temperature,
                      float min_p) {
  const float octaves = 0x1.715476p+0f / temperature;
  return {.logits = logits,
          .n = n,
          .best = likeliest < 0 ? largest_logit(logits, n) : logits[likeliest],
          .octaves = octaves < 3.0e38f ? octaves : 3.0e38f,
          .min_p = min_p};
}

// Draws where every token may be drawn.
static int32_t draw_of_all(const Draw* d, double u) {
  int64_t sums[kMaxVocab / kVocabTile], total = 0;
  for (int32_t begin = 0, t = 0; begin < d->n; begin += kVocabTile, t++) {
    sums[t] = weigh_tile(d, begin, d->weights);
    total += sums[t];
  }
  int64_t r = place_in(total, u);
  int32_t t = 0;
  while (r >= sums[t]) r -= sums[t++];
  weigh_tile(d, t * kVocabTile, d->weights);
  return t * kVocabTile + place_of(d->weights, r);
}

// The smallest integer >= share * total, at least 1.
static int64_t part_of(double share, int64_t total) {
  const double part = share * (double)total;
  const int64_t whole = (int64_t)part;
  const int64_t up = (double)whole < part ? whole + 1 : whole;
  return up < 1 ? 1 : up;
}

__attribute__((noinline)) int32_t sample(const float* logits, int32_t n, int32_t likeliest,
                                         float temperature, int32_t top_k, float top_p, float min_p,
                                         double u, void* scratch) {
  const int64_t padded = (int64_t)(n + 15) / 16 * 16;
  Draw d = draw_from(logits, n, likeliest, temperature, min_p);
  d.keys = (uint64_t*)scratch;
  d.weights = (int32_t*)(d.keys + padded);
  if (!(d.best > kMinusInf)) return -1;
  const bool by_count = top_k > 0 && top_k < n;
  if (!by_count && top_p >= 1.0f) return draw_of_all(&d, u);
  int64_t total = 0;
  for (int32_t begin = 0; begin < n; begin += kVocabTile)
    total += weigh_tile(&d, begin, d.weights + begin);
  if (by_count) {
    keep_best(&d, true, top_k);
    total = weight_of_range(d.weights, 0, n);
  }
  if (top_p < 1.0f) {
    keep_best(&d, false, part_of((double)top_p, total));
    total = weight_of_range(d.weights, 0, n);
  }
  return token_at(&d, place_in(total, u));
}

__attribute__((noinline)) int32_t draw(const float* logits, int32_t n, int32_t likeliest,
                                       float temperature, double u, int32_t* weights) {
  Draw d = draw_from(logits, n, likeliest, temperature, 0.0f);
  d.weights = weights;
  return d.best > kMinusInf ? draw_of_all(&d, u) : -1;
}

}  // namespace octavo::OCTAVO_ISA
