// tiles/attention_scores.h: what attention in tiles has in common, whatever the pages: passes of up
// to 16 rows, and q.k.
//
// 64 bytes of each token of a unit of K are a tile as they lie, 16 rows of 64 bytes.
#pragma once
#include "kernels/attention_group.h"
#include "kernels/tiles/words.h"

namespace octavo::OCTAVO_ISA {

constexpr int kKStep = 16 * 64;  // bytes of a unit of K that one dot takes

// The dots of a format.
struct Bf16Dots {
  template <int C, int A, int B> OCTAVO_TILE_MEMBER static void multiply(Tiles& t) {
    t.template dot_bf16<C, A, B>();
  }
};
struct ByteDots {  // of signed bytes of q and of unsigned ones of K
  template <int C, int A, int B> OCTAVO_TILE_MEMBER static void multiply(Tiles& t) {
    t.template dot_s8u8<C, A, B>();
  }
};

struct PackedQ {
  const uint8_t* rows;
  int64_t stride;
  int bytes;  // of a row: whole fours
};

// Tiles: sums 0 .. 3; q or weights 4, K or V 5; the last bytes of each, fewer than 64, 6 and 7.
static TileShapes shapes_for(int rows, int q_bytes) {
  TileShapes shapes{};
  for (int i = 0; i < 5; ++i) {
    shapes.rows[i] = (uint8_t)rows;
    shapes.bytes[i] = 64;
  }
  shapes.rows[5] = 16;
  shapes.bytes[5] = 64;
  if (q_bytes % 64 != 0) {
    shapes.rows[6] = (uint8_t)rows;
    shapes.bytes[6] = (uint16_t)(q_bytes % 64);
    shapes.rows[7] = (uint8_t)(q_bytes % 64 / 4);
    shapes.bytes[7] = 64;
  }
  return shapes;
}

// One line of the next tile is asked for with every line read (attention_chain.h says why).
// Lines are whole fours.
OCTAVO_INLINE void ask_for(const uint8_t* line, int lines) {
  for (const uint8_t* end = line + lines * 64; line < end; line += 256)
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) __builtin_prefetch(line + i * 64, 0, 2);
}

template <int S> OCTAVO_INLINE void zero_unit(Tiles& t, Units units) {
  if (S >= units.begin && S < units.end) t.template zero<S>();
}

template <class Dots, int S, int kQ, int kK>
OCTAVO_INLINE void multiply_unit(Tiles& t, const TileAddresses& at, Units units, int step,
                                 int lines) {
  if (S < units.begin || S >= units.end) return;
  t.template load<kK>(at.k[S] + (int64_t)step * kKStep, 64);
  Dots::template multiply<S, kQ, kK>(t);
  if (!at.ahead) return;
  ask_for(at.next_k[S] + (int64_t)step * kKStep, lines);
  if (at.soon) ask_for(at.next_k[S + kSoon] + (int64_t)step * kKStep, lines);
}

template <class Dots, int kQ, int kK>
OCTAVO_INLINE void multiply_step(Tiles& t, const TileAddresses& at, Units units, const PackedQ& q,
                                 int step) {
  const int lines = least(q.bytes - step * 64, 64) / 4;
  t.template load<kQ>(q.rows + step * 64, q.stride);
  multiply_unit<Dots, 0, kQ, kK>(t, at, units, step, lines);
  multiply_unit<Dots, 1, kQ, kK>(t, at, units, step, lines);
  multiply_unit<Dots, 2, kQ, kK>(t, at, units, step, lines);
  multiply_unit<Dots, 3, kQ, kK>(t, at, units, step, lines);
}

// Scores into tiles 0 .. 3, one for each unit.
template <class Dots>
static void multiply_scores(Tiles& t, const TileAddresses& at, Units units, const PackedQ& q) {
  zero_unit<0>(t, units);
  zero_unit<1>(t, units);
  zero_unit<2>(t, units);
  zero_unit<3>(t, units);
  const int steps = q.bytes / 64;
  for (int step = 0; step < steps; ++step) multiply_step<Dots, 4, 5>(t, at, units, q, step);
  if (q.bytes % 64 != 0) multiply_step<Dots, 6, 7>(t, at, units, q, steps);
}

template <int S> OCTAVO_INLINE void store_unit(Tiles& t, Units units, Tile* tile) {
  if (S >= units.begin && S < units.end) t.template store<S>(tile->score[0] + S * 16, kTile * 4);
}
static void store_scores(Tiles& t, Units units, Tile* tile) {
  store_unit<0>(t, units, tile);
  store_unit<1>(t, units, tile);
  store_unit<2>(t, units, tile);
  store_unit<3>(t, units, tile);
}

// How many rows a pass may have: all that is asked of TileKernels here.
struct PassSizes {
  TileKernels of[kPassRows];
  constexpr PassSizes() : of{} {
    for (int i = 0; i < kPassRows; ++i) of[i].rows = i + 1;
  }
};
static constexpr PassSizes kSizes;

// Rows [begin, begin + count) of the call, in passes of as many rows each: where one has fewer, the
// last is there twice. A row's q is packed into `stride` bytes.
template <void (*kPackRow)(const float* q, int k_dim, uint8_t* out)>
static void begin_passes(Group* group, const AttentionArgs* a, int row0, int begin, int count,
                         uint8_t* q, int64_t stride, float* o) {
  const Split passes(count, kPassRows);
  const int k_dim = a->layout->k_dim, rows = (count + passes.count - 1) / passes.count;
  group->count = passes.count;
  for (int i = 0; i < passes.count; i++) {
    uint8_t* pass_q = q + (int64_t)i * kPassRows * k_dim * 4;
    uint8_t* far_q = pass_q + packed_q_bytes(a->layout);
    const int first = begin + passes.begin(i), size = passes.size(i);
    for (int r = 0; r < rows; r++) {
      const int row = first + least(r, size - 1);
      kPackRow(q_of(a, a->q, row0, row), k_dim, pass_q + r * stride);
      if (a->beginning > 0) kPackRow(q_of(a, a->far_q, row0, row), k_dim, far_q + r * stride);
    }
    group->passes[i].far_q = far_q;
    begin_pass(group->passes + i, a, row0, first, size, kSizes.of + rows - 1, pass_q,
               o + (int64_t)i * kPassRows * a->layout->v_dim);
  }
}

}  // namespace octavo::OCTAVO_ISA
