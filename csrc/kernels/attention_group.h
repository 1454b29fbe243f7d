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
  uint8_t* values[2];  // room for the V of a tile and of the one before, where pages have K alone
};

// Of all passes.
static int64_t packed_q_bytes(const KVLayout* l) {
  return (int64_t)kAttentionGroupRows * l->k_dim * 4;
}

// q, or far_q, of row `row` of the call: token * group + head, tokens from row0 on.
static const float* q_of(const AttentionArgs* a, const float* q, int row0, int row) {
  const int token = row0 + row / a->group, at = a->q_rows != nullptr ? a->q_rows[token] : token;
  return q + at * a->q_stride + (int64_t)(row % a->group) * a->layout->k_dim;
}

static void begin_pass(Pass* pass, const AttentionArgs* a, int row0, int begin, int count,
                       const TileKernels* kernels, const void* q, float* o) {
  pass->kernels = kernels;
  pass->rows = count;
  pass->q = q;
  pass->o = o;
  for (int i = 0; i < pass->kernels->rows; i++) {
    const int row = begin + least(i, count - 1), token = row0 + row / a->group;
    if (a->slopes != nullptr) pass->slope[i] = a->slopes[row % a->group];
    pass->first[i] = most(attention_first_visible(a, token), a->sinks.end);
    pass->last[i] = attention_position(a, token);
    pass->beginning[i] = attention_beginning(a, token);
  }
}

struct Walk {  // of a group through a chunk: positions
  int first;   // that its first row sees, behind the sinks
  int begin, end;
};
static Walk walk_of(const Group* group, int chunk) {
  const Pass* last = group->passes + group->count - 1;
  const int first = group->passes[0].first[0];
  return {first, most(chunk * kAttentionChunk, first / kTile * kTile),
          least((chunk + 1) * kAttentionChunk, last->last[last->rows - 1] + 1)};
}

// What a thread reads at the first position of a tile: beyond the rows' own K and V
// (`prefetch_end`), what it reads after these.
static KVPlace place_of(const AttentionArgs* a, int kv_head, int position, int prefetch_end) {
  if (position < prefetch_end) return {a->block_table, kv_head, position, prefetch_end};
  KVPlace next = a->next;
  next.position += position - (prefetch_end + kTile - 1) / kTile * kTile;
  return next;
}

// The block table may end where the positions do.
static KVAddress unit_of(const AttentionArgs* a, const KVPlace& place, int unit) {
  return kv_address(a, place.block_table, place.kv_head,
                    least(place.position + unit * 16, place.end - 1));
}

// One line of each unit of a tile, so that the addresses of its pages are known when all lines are
// asked for: to find them takes reads of memory, too.
static void ask_for_pages(const AttentionArgs* a, const KVPlace& place) {
  if (place.block_table == nullptr) return;
  for (int unit = 0; unit < 4; unit++) {
    const KVAddress there = unit_of(a, place, unit);
    __builtin_prefetch(there.k, 0, 2);
    __builtin_prefetch(there.v, 0, 2);
  }
}

struct Units {  // of a tile
  int begin, end;
};
// Returns those that some row of the group sees.
static Units find_tile(const AttentionArgs* a, int kv_head, int tile, const Walk& walk,
                       int prefetch_end, TileAddresses* at) {
  const int s0 = most(walk.first - tile, 0) / 16, s1 = least((walk.end - tile + 15) / 16, 4);
  const KVPlace next = place_of(a, kv_head, tile + kTile, prefetch_end);
  at->ahead = next.block_table != nullptr;
  // Units of K and V of one size are read line by line alike.
  const bool alike = a->layout->k_unit_stride == a->layout->v_unit_stride;
  for (int s = s0; s < s1; s++) {
    const KVAddress here = kv_address(a, a->block_table, kv_head, tile + s * 16);
    at->k[s] = here.k;
    at->v[s] = here.v;
    if (!at->ahead) continue;
    const KVAddress then = unit_of(a, next, s - s0);
    at->next_k[s] = then.k;
    at->next_v[s] = then.v;
    at->next_k[s + kSoon] = alike ? here.v : then.k;
    at->next_v[s + kSoon] = alike ? then.k : then.v;
  }
  ask_for_pages(a, place_of(a, kv_head, tile + 2 * kTile, prefetch_end));
  return {s0, s1};
}

static bool sees_tile(const Pass* pass, int begin) {
  return pass->first[0] < begin + kTile &&
         pass->last[pass->rows - 1] >= most(begin, pass->first[0]);
}

// The units that some row of the pass sees. A row that is a sink itself sees nothing of the tile
// behind the sinks: lo = hi.
static Units see_tile(const Pass* pass, Tile* tile, int begin) {
  const int rows = pass->kernels->rows;
  tile->begin = begin;
  for (int i = 0; i < rows; i++) {
    tile->lo[i] = least(most(pass->first[i] - begin, 0), kTile);
    tile->hi[i] = least(most(pass->last[i] + 1 - begin, tile->lo[i]), kTile);
  }
  return {tile->lo[0] / 16, (tile->hi[rows - 1] + 15) / 16};
}

// Where units of the beginning in a tile are; they are not asked for ahead.
static Units find_beginning(const AttentionArgs* a, int kv_head, int tile, TileAddresses* at) {
  const int units = (least(a->beginning - tile, kTile) + kKVUnit - 1) / kKVUnit;
  for (int s = 0; s < units; s++) {
    const KVAddress here = kv_address(a, a->block_table, kv_head, tile + s * kKVUnit);
    at->k[s] = here.k;
    at->v[s] = here.v;
  }
  at->ahead = false;
  return {0, units};
}
static bool sees_beginning(const Pass* pass, int tile) {
  return pass->beginning[pass->rows - 1] > tile;  // of rows the last is the farthest
}
// A row that is not far sees nothing of it here.
static Units see_beginning(const Pass* pass, Tile* tile, int begin) {
  const int rows = pass->kernels->rows;
  for (int i = 0; i < rows; i++) {
    tile->lo[i] = 0;
    tile->hi[i] = least(most(pass->beginning[i] - begin, 0), kTile);
  }
  return {0, (tile->hi[rows - 1] + 15) / 16};
}
// Of a chunk: where the beginning ends in it, or begins. Where no row is far nothing is looked for:
// the sequence may be shorter than that, and so its block table.
static int end_of_beginning(const Group* group, int chunk) {
  const Pass* last = group->passes + group->count - 1;
  return least(last->beginning[last->rows - 1], (chunk + 1) * kAttentionChunk);
}

// Of what rows see of a chunk: how a pass sees a tile of it, and by which q.
struct Part {
  bool (*sees)(const Pass*, int tile);
  Units (*see)(const Pass*, Tile*, int tile);
  const void* Pass::* q;
};
constexpr Part kBeginning{sees_beginning, see_beginning, &Pass::far_q};
constexpr Part kWindow{sees_tile, see_tile, &Pass::q};

// Calls take(pass, q, at, see, tile) for the tiles of a chunk in order, at each for the passes that
// see some of it; before the first of them ready(units, &at), of the units that some pass sees.
template <class Ready, class Take>
static void walk_tiles(Group* group, const AttentionArgs* a, int kv_head, int chunk,
                       int prefetch_end, Ready ready, Take take) {
  constexpr int kFewRows = 4;
  TileAddresses at;
  at.soon = group->passes[0].kernels->rows <= kFewRows;
  const auto visit = [&](const Part& part, int tile, Units units) {
    bool is_ready = false;
    for (int i = 0; i < group->count; i++) {
      Pass* pass = group->passes + i;
      if (!part.sees(pass, tile)) continue;
      if (!is_ready) ready(units, &at);
      is_ready = true;
      take(pass, pass->*part.q, at, part.see, tile);
      at.ahead = false;  // once is enough
    }
  };
  for (int tile = chunk * kAttentionChunk; tile < end_of_beginning(group, chunk); tile += kTile)
    visit(kBeginning, tile, find_beginning(a, kv_head, tile, &at));
  const Walk walk = walk_of(group, chunk);
  for (int tile = walk.begin; tile < walk.end; tile += kTile)
    visit(kWindow, tile, find_tile(a, kv_head, tile, walk, prefetch_end, &at));
}

static void clear_softmax(Pass* pass) {
  store_f(pass->m, set1_f(kNoMax));
  for (int i = 0; i < pass->kernels->rows; i++) store_f(pass->lane_l[i], zero_f());
}
static void clear_values(Pass* pass, int v_dim) {
  for (int d = 0; d < pass->kernels->rows * v_dim; d += 16) store_f(pass->o + d, zero_f());
}
static void clear_pass(Pass* pass, int v_dim) {
  clear_softmax(pass);
  clear_values(pass, v_dim);
}

static void finish_pass(Pass* pass) {
  store_f(pass->l, zero_f());
  for (int i = 0; i < pass->kernels->rows; i++) pass->l[i] = reduce_add(load_f(pass->lane_l[i]));
}

}  // namespace octavo::OCTAVO_ISA
