// tiles/attention_products.h: the two products of attention over bf16 pages, in tiles.
//
// A pass is up to 16 rows, the rows of a tile; a unit of K and two of V are a tile as they lie.
// Sums are those of dot_bf16: a score takes 32 d at a time from 0 on (16 at the end, where k_dim is
// an odd number of 16), o takes 32 tokens at a time, those at 0 and at 32 of a tile of KV. A token
// that the row does not see counts as 0 * 0 beside one that it sees; 32 that it does not see at all
// are no step. So every row stands for itself, whatever rows are beside it.
#pragma once
#include "kernels/attention_group.h"
#include "kernels/tiles/words.h"

namespace octavo::OCTAVO_ISA {

constexpr int kHalf = 32;         // tokens of a tile of V
constexpr int kPRow = kTile * 4;  // bytes from a row of weights to the next
constexpr int kKStep = 16 * 64;   // bytes of 32 d of a unit of K

// One pass on its way through one tile of KV.
struct Turn {
  Tile tile;
  TileAddresses at;
  Units units;
  Pass* pass;  // null: none
};

// Tiles: sums 0 .. 3; q or weights 4, K or V 5; 16 d of each 6 and 7.
static TileShapes shapes_for(int rows, int k_dim) {
  TileShapes shapes{};
  for (int i = 0; i < 5; ++i) {
    shapes.rows[i] = (uint8_t)rows;
    shapes.bytes[i] = 64;
  }
  shapes.rows[5] = 16;
  shapes.bytes[5] = 64;
  if (k_dim % 32 != 0) {
    shapes.rows[6] = (uint8_t)rows;
    shapes.bytes[6] = 32;
    shapes.rows[7] = 8;
    shapes.bytes[7] = 64;
  }
  return shapes;
}

// One line of the next tile is asked for with every line read (attention_chain.h says why).
OCTAVO_INLINE void ask_for(const uint8_t* line, int lines, int64_t stride) {
#pragma GCC unroll 1
  for (int i = 0; i < lines; ++i) __builtin_prefetch(line + i * stride, 0, 2);
}

template <int S> OCTAVO_INLINE void zero_unit(Tiles& t, Units units) {
  if (S >= units.begin && S < units.end) t.template zero<S>();
}

template <int S, int kQ, int kK>
OCTAVO_INLINE void multiply_unit(Tiles& t, const TileAddresses& at, Units units, int step) {
  if (S < units.begin || S >= units.end) return;
  t.template load<kK>(at.k[S] + (int64_t)step * kKStep, 64);
  t.template dot_bf16<S, kQ, kK>();
  if (at.ahead) ask_for(at.next_k[S] + (int64_t)step * kKStep, kQ == 4 ? 16 : 8, 64);
}

template <int kQ, int kK>
OCTAVO_INLINE void multiply_step(Tiles& t, const TileAddresses& at, Units units, const uint8_t* q,
                                 int64_t stride, int step) {
  t.template load<kQ>(q + step * 64, stride);
  multiply_unit<0, kQ, kK>(t, at, units, step);
  multiply_unit<1, kQ, kK>(t, at, units, step);
  multiply_unit<2, kQ, kK>(t, at, units, step);
  multiply_unit<3, kQ, kK>(t, at, units, step);
}

// Scores into tiles 0 .. 3, one for each unit.
static void multiply_scores(Tiles& t, const Turn& turn, int k_dim) {
  zero_unit<0>(t, turn.units);
  zero_unit<1>(t, turn.units);
  zero_unit<2>(t, turn.units);
  zero_unit<3>(t, turn.units);
  const auto* q = (const uint8_t*)turn.pass->q;
  const int steps = k_dim / 32;
  for (int step = 0; step < steps; ++step)
    multiply_step<4, 5>(t, turn.at, turn.units, q, k_dim * 2, step);
  if (k_dim % 32 != 0) multiply_step<6, 7>(t, turn.at, turn.units, q, k_dim * 2, steps);
}

template <int S> OCTAVO_INLINE void store_unit(Tiles& t, Turn* turn) {
  if (S >= turn->units.begin && S < turn->units.end)
    t.template store<S>(turn->tile.score[0] + S * 16, kTile * 4);
}
static void store_scores(Tiles& t, Turn* turn) {
  store_unit<0>(t, turn);
  store_unit<1>(t, turn);
  store_unit<2>(t, turn);
  store_unit<3>(t, turn);
}

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
