// attention_walk.h: one chunk of KV for a group of rows, by the kernels of the formats.
//
// The arithmetic is the formats' (kv_traits.h) and attention_softmax.h's.
#pragma once
#include "kernels/attention_group.h"
#include "kernels/attention_softmax.h"
#include "kernels/kv_transpose.h"

namespace octavo::OCTAVO_ISA {

template <int M, int32_t... kFormats> constexpr TileKernels kernels_of(KVFormats<kFormats...>) {
  return {
      M,
      {{KV<kFormats>::template scores<M, false>...}, {KV<kFormats>::template scores<M, true>...}},
      {{KV<kFormats>::template values<M, false>...}, {KV<kFormats>::template values<M, true>...}}};
}
template <int M> constexpr TileKernels tile_kernels() { return kernels_of<M>(EveryKVFormat{}); }
#if OCTAVO_LEVEL >= OCTAVO_LEVEL_avx512
static constexpr TileKernels kTileKernels[] = {
    tile_kernels<1>(), tile_kernels<2>(), tile_kernels<3>(), tile_kernels<4>(),
    tile_kernels<6>(), tile_kernels<8>(), tile_kernels<9>(), tile_kernels<12>()};
#elif OCTAVO_LEVEL >= OCTAVO_LEVEL_avx2
static constexpr TileKernels kTileKernels[] = {
    tile_kernels<1>(), tile_kernels<2>(), tile_kernels<3>(), tile_kernels<4>(), tile_kernels<6>()};
#else
static constexpr TileKernels kTileKernels[] = {tile_kernels<1>(), tile_kernels<2>(),
                                               tile_kernels<3>()};
#endif

// The smallest kernel for that many rows; the rows it has too many are copies whose results nobody
// reads.
OCTAVO_INLINE const TileKernels* tile_kernels_for(int rows) {
  const TileKernels* k = kTileKernels;
  while (k->rows < rows) k++;
  return k;
}

// From a tile's scores to o: the weights, then their product with V.
template <class F>
static void add_tile(Pass* pass, Tile* tile, const TileAddresses* at, int s0, int s1, float c,
                     int v_dim) {
  tile_weights<F>(pass, tile, s0, s1, c);
  F::add_values(pass, tile, at, s0, s1, v_dim);
}

struct WalkKernels {  // indexed by KVFormat: K's of pack_q, V's of add_tile
  void (*pack_q[kKVFormats])(const float* q, int k_dim, int rows, int lane, void* pack);
  void (*add_tile[kKVFormats])(Pass*, Tile*, const TileAddresses*, int s0, int s1, float c,
                               int v_dim);
};
template <int32_t... kFormats> constexpr WalkKernels walk_kernels(KVFormats<kFormats...>) {
  return {{KV<kFormats>::pack_q...}, {add_tile<KV<kFormats>>...}};
}
static constexpr WalkKernels kWalk = walk_kernels(EveryKVFormat{});

// Rows [begin, begin + count) of the call, row = token * group + head, for pages of a layout; spare
// lanes of the kernel repeat the last one.
static void pack_pass(const AttentionArgs* a, const float* rows_q, const KVLayout* l, int row0,
                      int begin, int count, void* q) {
  const int rows = tile_kernels_for(count)->rows;
  for (int i = 0; i < rows; i++) {
    const float* row = q_of(a, rows_q, row0, begin + least(i, count - 1));
    kWalk.pack_q[l->k_format](row, l->k_dim, rows, i, q);
  }
}

// `units` of a tile in pages of a layout, for which q was packed.
static void walk_units(Pass* pass, Tile* tile, const AttentionArgs* a, const KVLayout* l,
                       const void* q, const TileAddresses* at, Units units) {
  const bool capped = a->softcap > 0.0f;
  const float c = (capped ? a->softcap : a->scale) * 1.44269504f;
  pass->kernels->scores[at->ahead][l->k_format](at->k, at->next_k, units.begin, units.end, q,
                                                l->k_dim, tile->score[0]);
  if (capped) cap_scores(pass, tile, units.begin, units.end, a->scale / a->softcap);
  if (a->slopes != nullptr) add_slopes(pass, tile, units.begin, units.end, a);
  tile_max(pass, tile, units.begin, units.end, c);
  kWalk.add_tile[l->v_format](pass, tile, at, units.begin, units.end, c, l->v_dim);
}

// Rows [begin, begin + count) of the call; q is packed into `q`, the chunk's o is kept in `o`.
static void begin_group(Group* group, const AttentionArgs* a, int row0, int begin, int count,
                        uint8_t* q, float* o) {
  const Split passes(count, kPassRows);
  group->count = passes.count;
  for (int i = 0; i < passes.count; i++) {
    uint8_t* pass_q = q + (int64_t)i * kPassRows * a->layout->k_dim * 4;
    pack_pass(a, a->q, a->layout, row0, begin + passes.begin(i), passes.size(i), pass_q);
    uint8_t* more_q = pass_q + packed_q_bytes(a->layout);
    if (a->sinks.end > 0) {
      pack_pass(a, a->q, a->sinks.layout, row0, begin + passes.begin(i), passes.size(i), more_q);
      group->passes[i].sink_q = more_q;
    } else if (a->beginning > 0) {
      pack_pass(a, a->far_q, a->layout, row0, begin + passes.begin(i), passes.size(i), more_q);
      group->passes[i].far_q = more_q;
    }
    begin_pass(group->passes + i, a, row0, begin + passes.begin(i), passes.size(i),
               tile_kernels_for(passes.size(i)), pass_q,
               o + (int64_t)i * kPassRows * a->layout->v_dim);
  }
}

// Sinks are a part of the first tile, or all of it; every row sees the first of them.
static Units see_sinks(const Pass* pass, Tile* tile, int end) {
  const int rows = pass->kernels->rows;
  tile->begin = 0;
  for (int i = 0; i < rows; i++) {
    tile->lo[i] = 0;
    tile->hi[i] = least(pass->last[i] + 1, end);
  }
  return {0, (tile->hi[rows - 1] + 15) / 16};
}

static void find_sinks(const AttentionArgs* a, int kv_head, TileAddresses* at) {
  const KVSinks& s = a->sinks;
  for (int slot = 0; slot < s.end; slot += kKVUnit) {
    const KVUnit unit = kv_unit(s.layout, s.block, a->layer, kv_head, slot);
    at->k[slot / kKVUnit] = s.pages + unit.k;
    at->v[slot / kKVUnit] = s.pages + unit.v;
  }
  at->ahead = false;
}

static void walk_sinks(Group* group, Tile* work, const AttentionArgs* a, int kv_head) {
  TileAddresses at;
  find_sinks(a, kv_head, &at);
  for (int i = 0; i < group->count; i++) {
    Pass* pass = group->passes + i;
    const Units units = see_sinks(pass, work, a->sinks.end);
    walk_units(pass, work, a, a->sinks.layout, pass->sink_q, &at, units);
  }
}

// The state (m, l, o) of every row over one chunk, from nothing. Prefetches up to position
// `prefetch_end`, beyond the chunk too: who computes a chunk will mostly compute the next one.
static void walk_chunk(Group* group, const AttentionArgs* a, int kv_head, int chunk,
                       int prefetch_end) {
  Tile work;
  for (int i = 0; i < group->count; i++) clear_pass(group->passes + i, a->layout->v_dim);
  if (chunk == 0 && a->sinks.end > 0) walk_sinks(group, &work, a, kv_head);
  const auto ready = [&](Units units, TileAddresses* at) {
    make_values(a->layout, units, at, group->values[0]);
  };
  const auto take = [&](Pass* pass, const void* q, const TileAddresses& at, auto see, int tile) {
    walk_units(pass, &work, a, a->layout, q, &at, see(pass, &work, tile));
  };
  walk_tiles(group, a, kv_head, chunk, prefetch_end, ready, take);
  for (int i = 0; i < group->count; i++) finish_pass(group->passes + i);
}

}  // namespace octavo::OCTAVO_ISA
