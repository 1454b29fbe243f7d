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

// The V of a half of a tile: pairs of tokens, `stride` bytes apart.
struct Values {
  const uint8_t* pairs;
  int64_t stride;
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
  return {room, stride};
}

template <int D>
OCTAVO_INLINE void add_panel(Tiles& t, const Values& v, int d, float* o, int v_dim,
                             int64_t out_stride, float* out) {
  if (d + D * 16 >= v_dim) return;
  t.template load<D>(o + d + D * 16, v_dim * 4);
  t.template load<5>(v.pairs + (d + D * 16) * 4, v.stride);
  t.template dot_bf16<D, 4, 5>();
  t.template store<D>(out + d + D * 16, out_stride);
}

// out = o + weights times V, for all rows of the pass.
static void add_half(Tiles& t, const Values& v, const uint32_t* p, float* o, int v_dim,
                     float* out) {
  t.load<4>(p, kPRow);
  for (int d = 0; d < v_dim; d += 64) {
    add_panel<0>(t, v, d, o, v_dim, v_dim * 4, out);
    add_panel<1>(t, v, d, o, v_dim, v_dim * 4, out);
    add_panel<2>(t, v, d, o, v_dim, v_dim * 4, out);
    add_panel<3>(t, v, d, o, v_dim, v_dim * 4, out);
  }
}

static int within(int token, int begin) { return least(most(token - begin, 0), kHalf); }

// The rows of a pass that see the same of a half go through it together. Unless these are all, the
// product is made for all, and theirs is taken.
static void add_values(Tiles& t, Turn* turn, int half, int v_dim) {
  alignas(64) uint8_t room[kHalf * kAttentionMaxDim * 2];
  alignas(64) float all[kPassRows * kAttentionMaxDim];
  Pass* pass = turn->pass;
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
    const bool as_it_lies = lo == 0 && hi == kHalf && units[1] == units[0] + 8 * stride;
    const Values v =
        as_it_lies ? Values{units[0], stride} : clean_values(units, lo, hi, v_dim, room);
    const bool every = end - i == rows;
    add_half(t, v, p, pass->o, v_dim, every ? pass->o : all);
    if (!every)
      __builtin_memcpy(pass->o + i * v_dim, all + i * v_dim, (size_t)((end - i) * stride));
  }
}

}  // namespace octavo::OCTAVO_ISA
