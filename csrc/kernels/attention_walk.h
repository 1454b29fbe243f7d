// attention_walk.h: one chunk of KV for a group of rows: kernels, addresses, masks and turns.
//
// A group is up to 48 (token, head) rows in passes of at most kPassRows; its passes take turns at
// every tile, so that K and V come from memory once. The arithmetic is the formats' (kv_traits.h)
// and attention_softmax.h's.
#pragma once
#include "kernels/attention_softmax.h"

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

// Rows [begin, begin + count) of the call, row = token * group + head; spare lanes of the kernel
// repeat the last one.
static void pack_pass(const AttentionArgs* a, int row0, int begin, int count, void* q) {
  const int rows = tile_kernels_for(count)->rows, k_dim = a->layout->k_dim;
  for (int i = 0; i < rows; i++) {
    const int row = begin + least(i, count - 1), token = row0 + row / a->group,
              head = row % a->group;
    kWalk.pack_q[a->layout->k_format](a->q + token * a->q_stride + (int64_t)head * k_dim, k_dim,
                                      rows, i, q);
  }
}

static void begin_pass(Pass* pass, const AttentionArgs* a, int row0, int begin, int count,
                       const void* q, float* o) {
  pass->kernels = tile_kernels_for(count);
  pass->rows = count;
  pass->q = q;
  pass->o = o;
  for (int i = 0; i < pass->kernels->rows; i++) {
    const int token = row0 + (begin + least(i, count - 1)) / a->group;
    pass->first[i] = attention_first_visible(a, token);
    pass->last[i] = a->first_position + token;
  }
}

// Beyond the rows' own K and V (`prefetch_end`) comes what the thread reads after them.
static void find_tile(const AttentionArgs* a, int kv_head, int tile, int s0, int s1,
                      int prefetch_end, TileAddresses* at) {
  const bool own = tile + kTile < prefetch_end;
  const KVPlace next =
      own ? KVPlace{a->block_table, kv_head, tile + kTile + s0 * 16, prefetch_end} : a->next;
  at->ahead = next.block_table != nullptr;
  for (int s = s0; s < s1; s++) {
    const KVAddress here = kv_address(a, a->block_table, kv_head, tile + s * 16);
    at->k[s] = here.k;
    at->v[s] = here.v;
    if (!at->ahead) continue;
    // The block table may end where the positions do.
    const int position = least(next.position + (s - s0) * 16, next.end - 1);
    const KVAddress then = kv_address(a, next.block_table, next.kv_head, position);
    at->next_k[s] = then.k;
    at->next_v[s] = then.v;
  }
}

static void walk_tile(Pass* pass, Tile* tile, const AttentionArgs* a, const TileAddresses* at,
                      int begin) {
  const int rows = pass->kernels->rows;
  const bool capped = a->softcap > 0.0f;
  const float c = (capped ? a->softcap : a->scale) * 1.44269504f;
  for (int i = 0; i < rows; i++) {
    tile->lo[i] = least(most(pass->first[i] - begin, 0), kTile);
    tile->hi[i] = least(most(pass->last[i] + 1 - begin, 0), kTile);
  }
  const int s0 = tile->lo[0] / 16, s1 = (tile->hi[rows - 1] + 15) / 16;
  const KVLayout* l = a->layout;
  pass->kernels->scores[at->ahead][l->k_format](at->k, at->next_k, s0, s1, pass->q, l->k_dim,
                                                tile->score[0]);
  if (capped) cap_scores(pass, tile, s0, s1, a->scale / a->softcap);
  tile_max(pass, tile, s0, s1, c);
  kWalk.add_tile[l->v_format](pass, tile, at, s0, s1, c, l->v_dim);
}

struct Split {  // `total` rows in `count` even runs of at most `most_rows`
  int total, count;
  Split(int rows, int most_rows) : total(rows), count((rows + most_rows - 1) / most_rows) {}
  int begin(int i) const { return (int)((int64_t)total * i / count); }
  int size(int i) const { return begin(i + 1) - begin(i); }
};

struct Group {
  Pass passes[kAttentionGroupRows / kPassRows];
  int32_t count;
};

// Rows [begin, begin + count) of the call; q is packed into `q`, the chunk's o is kept in `o`.
static void begin_group(Group* group, const AttentionArgs* a, int row0, int begin, int count,
                        uint8_t* q, float* o) {
  const Split passes(count, kPassRows);
  group->count = passes.count;
  for (int i = 0; i < passes.count; i++) {
    uint8_t* pass_q = q + (int64_t)i * kPassRows * a->layout->k_dim * 4;
    pack_pass(a, row0, begin + passes.begin(i), passes.size(i), pass_q);
    begin_pass(group->passes + i, a, row0, begin + passes.begin(i), passes.size(i), pass_q,
               o + (int64_t)i * kPassRows * a->layout->v_dim);
  }
}

static void clear_pass(Pass* pass, int v_dim) {
  const int rows = pass->kernels->rows;
  store_f(pass->m, set1_f(kNoMax));
  for (int i = 0; i < rows; i++) store_f(pass->lane_l[i], zero_f());
  for (int d = 0; d < rows * v_dim; d += 16) store_f(pass->o + d, zero_f());
}

static void finish_pass(Pass* pass) {
  store_f(pass->l, zero_f());
  for (int i = 0; i < pass->kernels->rows; i++) pass->l[i] = reduce_add(load_f(pass->lane_l[i]));
}

// The state (m, l, o) of every row over one chunk, from nothing. Prefetches up to position
// `prefetch_end`, beyond the chunk too: who computes a chunk will mostly compute the next one.
static void walk_chunk(Group* group, const AttentionArgs* a, int kv_head, int chunk,
                       int prefetch_end) {
  Tile work;
  for (int i = 0; i < group->count; i++) clear_pass(group->passes + i, a->layout->v_dim);
  const Pass* last = group->passes + group->count - 1;
  const int first = group->passes[0].first[0],
            begin = most(chunk * kAttentionChunk, first / kTile * kTile);
  const int end = least((chunk + 1) * kAttentionChunk, last->last[last->rows - 1] + 1);
  for (int tile = begin; tile < end; tile += kTile) {
    TileAddresses at;
    find_tile(a, kv_head, tile, most(first - tile, 0) / 16, least((end - tile + 15) / 16, 4),
              prefetch_end, &at);
    for (int i = 0; i < group->count; i++) {
      Pass* pass = group->passes + i;
      if (pass->first[0] >= tile + kTile || pass->last[pass->rows - 1] < tile) continue;
      walk_tile(pass, &work, a, &at, tile);
      at.ahead = false;  // once is enough
    }
  }
  for (int i = 0; i < group->count; i++) finish_pass(group->passes + i);
}

}  // namespace octavo::OCTAVO_ISA
