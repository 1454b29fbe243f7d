// tiles/attention_products.h: weights times V of attention over bf16 pages, in tiles.
//
// Two units of V are a tile as they lie. Sums are those of dot_bf16: a score takes 32 d at a time
// from 0 on (16 at the end, where k_dim is an odd number of 16), o takes 32 tokens at a time, those
// at 0 and at 32 of a tile of KV. A token that the row does not see counts as 0 * 0 beside one that
// it sees; 32 that it does not see at all are no step. So every row stands for itself, whatever
// rows are beside it.
#pragma once
#include "kernels/tiles/attention_scores.h"

namespace octavo::OCTAVO_ISA {

constexpr int kHalf = 32;         // tokens of a tile of V
constexpr int kPRow = kTile * 4;  // bytes from a row of weights to the next

// One pass on its way through one tile of KV.
struct Turn {
  Tile tile;
  TileAddresses at;
  Units units;
  Pass* pass;  // null: none
};

// The V of a run of halves of a tile: of each, pairs of tokens, `stride` bytes apart.
struct Values {
  const uint8_t* pairs[2];
  int64_t stride;
  int halves;
};

// Tokens outside [lo, hi) as 0, for 0 * NaN is NaN; what is not seen is not read.
static Values clean_values(const uint8_t* const* units, int lo, int hi, int v_dim, uint8_t* room) {
  const int64_t stride = (int64_t)v_dim * 4;
  for (int j = 0; j < kHalf / 2; ++j) {
    const bool low = 2 * j >= lo && 2 * j < hi, high = 2 * j + 1 >= lo && 2 * j + 1 < hi;
    const i32x16 kept = set1_i((int32_t)((low ? 0xffffu : 0u) | (high ? 0xffff0000u : 0u)));
    for (int64_t d = 0; d < stride; d += 64)
      store_i(room + j * stride + d,
              low || high ? and_i(load_i(units[j / 8] + j % 8 * stride + d), kept) : zero_i());
  }
  return {{room}, stride, 1};
}

// Of the 64 d from `d` on, those that there are, 16 at a time.
template <int D = 0, class Each> OCTAVO_INLINE void each_panel(int d, int v_dim, Each each) {
  if (d >= v_dim) return;
  each.template operator()<D>(d);
  if constexpr (D < 3) each_panel<D + 1>(d + 16, v_dim, each);
}

// out = o + weights times V, for all rows of the pass; o stays in tiles from half to half. Null is
// an o of 0.
static void add_run(Tiles& t, const Values& v, const uint32_t* p, const float* o, int v_dim,
                    float* out) {
  for (int from = 0; from < v_dim; from += 64) {
    each_panel(from, v_dim, [&]<int D>(int d) {
      if (o == nullptr) t.template zero<D>();
      else t.template load<D>(o + d, v_dim * 4);
    });
    for (int half = 0; half < v.halves; ++half) {
      t.load<4>(p + half * 16, kPRow);
      each_panel(from, v_dim, [&]<int D>(int d) {
        t.template load<5>(v.pairs[half] + d * 4, v.stride);
        t.template dot_bf16<D, 4, 5>();
      });
    }
    each_panel(from, v_dim, [&]<int D>(int d) { t.template store<D>(out + d, v_dim * 4); });
  }
}

static int within(int token, int begin) { return least(most(token - begin, 0), kHalf); }

static bool lies_in_one(const uint8_t* const* units, int v_dim) {
  return units[1] == units[0] + (int64_t)v_dim * 32;
}

// Adds both halves of a tile that all rows see and that lie as they should, or returns false.
static bool add_whole(Tiles& t, Turn* turn, int v_dim) {
  const Tile& tile = turn->tile;
  const uint8_t* const* v = turn->at.v;
  Pass* pass = turn->pass;
  if (tile.lo[pass->kernels->rows - 1] > 0 || tile.hi[0] < kTile) return false;
  if (!lies_in_one(v, v_dim) || !lies_in_one(v + 2, v_dim)) return false;
  add_run(t, {{v[0], v[2]}, (int64_t)v_dim * 4, 2}, tile.p[0], pass->begun ? pass->o : nullptr,
          v_dim, pass->o);
  pass->begun = true;
  return true;
}

static void begin_values(Pass* pass, int v_dim) {
  if (!pass->begun) clear_values(pass, v_dim);
  pass->begun = true;
}

// The rows of a pass that see the same of a half go through it together. Unless these are all, the
// product is made for all, and theirs is taken.
static void add_half(Tiles& t, Turn* turn, int half, int v_dim) {
  alignas(64) uint8_t room[kHalf * kAttentionMaxDim * 2];
  alignas(64) float all[kPassRows * kAttentionMaxDim];
  Pass* pass = turn->pass;
  begin_values(pass, v_dim);
  const Tile& tile = turn->tile;
  const int begin = half * kHalf, rows = pass->kernels->rows;
  const uint8_t* const* units = turn->at.v + 2 * half;
  const uint32_t* p = tile.p[0] + half * 16;
  for (int i = 0, end; i < rows; i = end) {
    const int lo = within(tile.lo[i], begin), hi = within(tile.hi[i], begin);
    for (end = i + 1; end < rows; ++end)
      if (within(tile.lo[end], begin) != lo || within(tile.hi[end], begin) != hi) break;
    if (lo >= hi) continue;
    const int64_t stride = (int64_t)v_dim * 4;
    const bool as_it_lies = lo == 0 && hi == kHalf && lies_in_one(units, v_dim);
    const Values v =
        as_it_lies ? Values{{units[0]}, stride, 1} : clean_values(units, lo, hi, v_dim, room);
    const bool every = end - i == rows;
    add_run(t, v, p, pass->o, v_dim, every ? pass->o : all);
    if (!every)
      __builtin_memcpy(pass->o + i * v_dim, all + i * v_dim, (size_t)((end - i) * stride));
  }
}

}  // namespace octavo::OCTAVO_ISA
