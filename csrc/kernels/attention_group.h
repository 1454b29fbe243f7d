// attention_group.h: rows that walk the KV together: what they see, and where it lies.
//
// A group is up to 48 (token, head) rows in passes of at most kPassRows; its passes take turns at
// every tile, so that K and V come from memory once.
#pragma once
#include "kernels/attention_tile.h"

namespace octavo::OCTAVO_ISA {

constexpr float kNoMax = -1e30f;  // not -inf: inf - inf is NaN

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

static void begin_pass(Pass* pass, const AttentionArgs* a, int row0, int begin, int count,
                       const TileKernels* kernels, const void* q, float* o) {
  pass->kernels = kernels;
  pass->rows = count;
  pass->q = q;
  pass->o = o;
  for (int i = 0; i < pass->kernels->rows; i++) {
    const int token = row0 + (begin + least(i, count - 1)) / a->group;
    pass->first[i] = attention_first_visible(a, token);
    pass->last[i] = a->first_position + token;
  }
}

struct Walk {  // of a group through a chunk: positions
  int first;   // that its first row sees
  int begin, end;
};
static Walk walk_of(const Group* group, int chunk) {
  const Pass* last = group->passes + group->count - 1;
  const int first = group->passes[0].first[0];
  return {first, most(chunk * kAttentionChunk, first / kTile * kTile),
          least((chunk + 1) * kAttentionChunk, last->last[last->rows - 1] + 1)};
}

// Beyond the rows' own K and V (`prefetch_end`) comes what the thread reads after them.
static void find_tile(const AttentionArgs* a, int kv_head, int tile, const Walk& walk,
                      int prefetch_end, TileAddresses* at) {
  const int s0 = most(walk.first - tile, 0) / 16, s1 = least((walk.end - tile + 15) / 16, 4);
  const bool own = tile + kTile < prefetch_end;
  const KVPlace next =
      own ? KVPlace{a->block_table, kv_head, tile + kTile + s0 * 16, prefetch_end} : a->next;
  at->ahead = next.block_table != nullptr;
  // Units of K and V of one size are read line by line alike.
  const bool alike = a->layout->k_unit_stride == a->layout->v_unit_stride;
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
    at->next_k[s + kSoon] = alike ? here.v : then.k;
    at->next_v[s + kSoon] = alike ? then.k : then.v;
  }
}

static bool sees_tile(const Pass* pass, int begin) {
  return pass->first[0] < begin + kTile && pass->last[pass->rows - 1] >= begin;
}

struct Units {  // of a tile, that some row sees
  int begin, end;
};
static Units see_tile(const Pass* pass, Tile* tile, int begin) {
  const int rows = pass->kernels->rows;
  for (int i = 0; i < rows; i++) {
    tile->lo[i] = least(most(pass->first[i] - begin, 0), kTile);
    tile->hi[i] = least(most(pass->last[i] + 1 - begin, 0), kTile);
  }
  return {tile->lo[0] / 16, (tile->hi[rows - 1] + 15) / 16};
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

}  // namespace octavo::OCTAVO_ISA
