// tiles/attention_walk.h: one chunk of bf16 KV for a group of rows, its products in tiles.
//
// Passes take turns, and the scores of one are multiplied while the one before has its softmax.
#pragma once
#include "kernels/attention_softmax.h"
#include "kernels/kv_transpose.h"
#include "kernels/tiles/attention_products.h"

namespace octavo::OCTAVO_ISA {

// Weights as rows of a tile. None is a denormal, which store_bf16 may take for 0.
struct TiledWeights {
  OCTAVO_INLINE void store_p(uint32_t* row, int s, f32x16 p) { store_bf16(row + s * 8, p); }
};

// o is 0 before the first tile of a chunk, and the top stays what it is in most of the others.
static void scale_rows(Pass* pass, const float* alpha, int v_dim) {
  if (!pass->begun) return;
  const mask16 there = first_lanes(pass->kernels->rows);
  uint32_t rows = _mm512_mask_cmp_ps_mask(there, load_f(alpha), set1_f(1.0f), _CMP_NEQ_UQ);
  for (; rows != 0; rows &= rows - 1) {
    const int i = __builtin_ctz(rows);
    scale_values(pass->o + i * v_dim, pass->o + i * v_dim, alpha[i], v_dim);
  }
}

// From scores to weights; o is scaled for them.
static void weigh(Turn* turn, const AttentionArgs* a) {
  const bool capped = a->softcap > 0.0f;
  const float c = (capped ? a->softcap : a->scale) * 1.44269504f;
  const int s0 = turn->units.begin, s1 = turn->units.end;
  Pass* pass = turn->pass;
  if (capped) cap_scores(pass, &turn->tile, s0, s1, a->scale / a->softcap);
  if (a->slopes != nullptr) add_slopes(pass, &turn->tile, s0, s1, a);
  tile_max(pass, &turn->tile, s0, s1, c);
  scale_rows(pass, turn->tile.alpha, a->layout->v_dim);
  tile_weights<TiledWeights>(pass, &turn->tile, s0, s1, c);
  for (int i = 0; i < pass->kernels->rows; i++) {  // the other half of 32 tokens that are begun
    if (s0 % 2 != 0) TiledWeights::store_p(turn->tile.p[i], s0 - 1, zero_f());
    if (s1 % 2 != 0) TiledWeights::store_p(turn->tile.p[i], s1, zero_f());
  }
}

static void finish_turn(Tiles& t, Turn* turn, const AttentionArgs* a) {
  if (turn->pass == nullptr) return;
  weigh(turn, a);
  const Units units = turn->units;
  const int v_dim = a->layout->v_dim;
  if (!add_whole(t, turn, v_dim))
    for (int half = units.begin / 2; half < (units.end + 1) / 2; ++half)
      add_half(t, turn, half, v_dim);
  for (int s = units.begin; s < units.end && turn->at.ahead; ++s) {
    ask_for(turn->at.next_v[s], v_dim / 2);
    if (turn->at.soon) ask_for(turn->at.next_v[s + kSoon], v_dim / 2);
  }
}

static void pack_row(const float* q, int k_dim, uint8_t* out) {
  for (int d = 0; d < k_dim; d += 16)
    _mm256_storeu_si256((__m256i*)(out + d * 2),
                        _mm512_cvtepi32_epi16(to_bf16_bits(load_f(q + d))));
}

static void begin_group(Group* group, const AttentionArgs* a, int row0, int begin, int count,
                        uint8_t* q, float* o) {
  begin_passes<pack_row>(group, a, row0, begin, count, q, a->layout->k_dim * 2, o);
}

// Does what that of kernels/attention_walk.h does: the state of every row over one chunk.
static void walk_chunk(Group* group, const AttentionArgs* a, int kv_head, int chunk,
                       int prefetch_end) {
  const int k_dim = a->layout->k_dim, v_dim = a->layout->v_dim;
  for (int i = 0; i < group->count; i++) {
    clear_softmax(group->passes + i);
    group->passes[i].begun = false;
  }
  Turn turns[2];
  Turn *now = turns, *before = turns + 1;
  before->pass = nullptr;
  Tiles t(shapes_for(group->passes[0].kernels->rows, k_dim * 2));
  int room = 0;  // of V; the turn before may have the other one
  const auto ready = [&](Units units, TileAddresses* at) {
    make_values(a->layout, units, at, group->values[room ^= 1]);
  };
  // One turn: its scores leave the tiles while the one before has its softmax.
  const auto take = [&](Pass* pass, const void* q, const TileAddresses& at, auto see, int tile) {
    now->pass = pass;
    now->at = at;
    now->units = see(pass, &now->tile, tile);
    multiply_scores<Bf16Dots>(t, at, now->units, {(const uint8_t*)q, k_dim * 2, k_dim * 2});
    store_scores(t, now->units, &now->tile);
    finish_turn(t, before, a);
    Turn* const done = before;
    before = now;
    now = done;
  };
  walk_tiles(group, a, kv_head, chunk, prefetch_end, ready, take);
  finish_turn(t, before, a);
  for (int i = 0; i < group->count; i++) {
    begin_values(group->passes + i, v_dim);  // of a pass that saw nothing
    finish_pass(group->passes + i);
  }
}

}  // namespace octavo::OCTAVO_ISA
