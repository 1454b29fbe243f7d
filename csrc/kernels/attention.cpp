// attention.cpp: walks the pages of one sequence for one kv head: groups of rows, chunks, passes, tiles (see attention.h).
//
// Knows addresses and masks; the arithmetic is in attention_tile.h and attention_softmax.h.
#include "attention_softmax.h"
#include "kv_write.h"

namespace octavo::OCTAVO_ISA {

static inline int least(int a, int b) { return a < b ? a : b; }
static inline int most(int a, int b) { return a > b ? a : b; }

// One row's q into lane `lane` of a [step][rows] pack.
static void pack_q(const float* q, int k_type, int k_dim, int rows, int lane, void* pack) {
  if (k_type == KV_F32) {
    for (int d = 0; d < k_dim; d++) ((float*)pack)[d * rows + lane] = q[d];
    return;
  }
  uint32_t pairs[kAttentionMaxDim / 2];
  for (int d = 0; d < k_dim; d += 16) store_bf16(pairs + d / 2, load_f(q + d));
  for (int i = 0; i < k_dim / 2; i++) ((uint32_t*)pack)[i * rows + lane] = pairs[i];
}

// Rows [begin, begin + count) of the call, row = token * group + head; spare lanes of the kernel repeat the last one.
static void pack_pass(const AttentionArgs* a, int kv_head, int row0, int begin, int count, void* q) {
  const int rows = tile_kernels_for(count)->rows, k_dim = a->layout->k_dim;
  for (int i = 0; i < rows; i++) {
    const int row = begin + least(i, count - 1), token = row0 + row / a->group;
    const int head = kv_head * a->group + row % a->group;
    pack_q(a->q + token * a->q_stride + (int64_t)head * k_dim, a->layout->k_type, k_dim, rows, i, q);
  }
}

static void begin_pass(Pass* pass, const AttentionArgs* a, int row0, int begin, int count, const void* q, float* o) {
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

// Where the sixteens [s0, s1) of a tile begin, and those of the tile after it if that is to be prefetched.
struct TileAddresses {
  const uint8_t *k[4], *v[4], *next_k[4], *next_v[4];
  bool ahead;
};

static void find_tile(const AttentionArgs* a, int kv_head, int tile, int s0, int s1, int prefetch_end, TileAddresses* at) {
  at->ahead = tile + kTile < prefetch_end;
  for (int s = s0; s < s1; s++) {
    const int position = tile + s * 16;
    const KVAddress here = kv_address(a, kv_head, position);
    at->k[s] = here.k;
    at->v[s] = here.v;
    if (!at->ahead) continue;
    const KVAddress next = kv_address(a, kv_head, least(position + kTile, prefetch_end - 1));   // the block table ends there
    at->next_k[s] = next.k;
    at->next_v[s] = next.v;
  }
}

template <class T>
static void add_values(const Pass* pass, Tile* tile, const TileAddresses* at, int type, int v_dim) {
  const int last = pass->kernels->rows - 1;
  // Steps that every row sees whole; lo and hi grow with the row.
  const int begin = (tile->lo[last] + T::kTokens - 1) / T::kTokens, end = tile->hi[0] / T::kTokens;
  if (begin >= end) {   // none: each row for itself
    for (int i = 0; i < pass->rows; i++)
      row_values<T>(at->v, tile->lo[i] / T::kTokens, (tile->hi[i] + T::kTokens - 1) / T::kTokens, tile->lo[i],
                    tile->hi[i], tile->p[i], tile->alpha[i], v_dim, pass->o + i * v_dim);
    return;
  }
  for (int i = 0; i < pass->rows; i++) {
    if (tile->lo[i] / T::kTokens == begin) continue;
    row_values<T>(at->v, tile->lo[i] / T::kTokens, begin, tile->lo[i], kTile, tile->p[i], tile->alpha[i], v_dim,
                  pass->o + i * v_dim);
    tile->alpha[i] = 1.0f;
  }
  pass->kernels->values[at->ahead][type](at->v, at->next_v, begin, end, tile->p, tile->alpha, v_dim, pass->o);
  for (int i = 0; i < pass->rows; i++) {
    const int row_end = (tile->hi[i] + T::kTokens - 1) / T::kTokens;
    if (row_end > end) row_values<T>(at->v, end, row_end, 0, tile->hi[i], tile->p[i], 1.0f, v_dim, pass->o + i * v_dim);
  }
}

static void walk_tile(Pass* pass, Tile* tile, const AttentionArgs* a, const TileAddresses* at, int begin) {
  const int rows = pass->kernels->rows;
  const float c = a->scale * 1.44269504f;
  for (int i = 0; i < rows; i++) {
    tile->lo[i] = least(most(pass->first[i] - begin, 0), kTile);
    tile->hi[i] = least(most(pass->last[i] + 1 - begin, 0), kTile);
  }
  const int s0 = tile->lo[0] / 16, s1 = (tile->hi[rows - 1] + 15) / 16;
  pass->kernels->scores[at->ahead][a->layout->k_type](at->k, at->next_k, s0, s1, pass->q, a->layout->k_dim, tile->score[0]);
  tile_max(pass, tile, s0, s1, c);
  if (a->layout->v_type == KV_BF16) {
    tile_weights<KV_BF16>(pass, tile, s0, s1, c);
    add_values<Bf16>(pass, tile, at, KV_BF16, a->layout->v_dim);
  } else {
    tile_weights<KV_F32>(pass, tile, s0, s1, c);
    add_values<F32>(pass, tile, at, KV_F32, a->layout->v_dim);
  }
}

struct Split {   // `total` rows in `count` even runs of at most `most_rows`
  int total, count;
  Split(int rows, int most_rows) : total(rows), count((rows + most_rows - 1) / most_rows) {}
  int begin(int i) const { return (int)((int64_t)total * i / count); }
  int size(int i) const { return begin(i + 1) - begin(i); }
};

// Up to kAttentionGroupRows rows. K and V come from memory once a group: its passes take turns at every tile, in L1.
struct Group {
  Pass passes[kAttentionGroupRows / kPassRows];
  int32_t count;
};

// Rows [begin, begin + count) of the call; q is packed into `q`, the chunk's o is kept in `o`.
static void begin_group(Group* group, const AttentionArgs* a, int kv_head, int row0, int begin, int count, uint8_t* q,
                        float* o) {
  const Split passes(count, kPassRows);
  group->count = passes.count;
  for (int i = 0; i < passes.count; i++) {
    uint8_t* pass_q = q + (int64_t)i * kPassRows * a->layout->k_dim * 4;
    pack_pass(a, kv_head, row0, begin + passes.begin(i), passes.size(i), pass_q);
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

// The state (m, l, o) of every row over one chunk, from nothing. Prefetches up to position `prefetch_end`, beyond the chunk
// too: who computes a chunk will mostly compute the next one.
static void walk_chunk(Group* group, const AttentionArgs* a, int kv_head, int chunk, int prefetch_end) {
  Tile work;
  for (int i = 0; i < group->count; i++) clear_pass(group->passes + i, a->layout->v_dim);
  const Pass* last = group->passes + group->count - 1;
  const int first = group->passes[0].first[0], begin = most(chunk * kAttentionChunk, first / kTile * kTile);
  const int end = least((chunk + 1) * kAttentionChunk, last->last[last->rows - 1] + 1);
  for (int tile = begin; tile < end; tile += kTile) {
    TileAddresses at;
    find_tile(a, kv_head, tile, most(first - tile, 0) / 16, least((end - tile + 15) / 16, 4), prefetch_end, &at);
    for (int i = 0; i < group->count; i++) {
      Pass* pass = group->passes + i;
      if (pass->first[0] >= tile + kTile || pass->last[pass->rows - 1] < tile) continue;
      walk_tile(pass, &work, a, &at, tile);
      at.ahead = false;   // once is enough
    }
  }
  for (int i = 0; i < group->count; i++) finish_pass(group->passes + i);
}

OCTAVO_INLINE bool sees_chunk(int first, int last, int chunk) {
  return first < (chunk + 1) * kAttentionChunk && last >= chunk * kAttentionChunk;
}

struct Totals {   // of one pass, over the chunks so far
  float m[16], l[16];
  float* o;       // [kPassRows][v_dim]
};

static void begin_totals(Totals* total, float* o, int v_dim) {
  store_f(total->m, set1_f(kNoMax));
  store_f(total->l, zero_f());
  total->o = o;
  for (int d = 0; d < kPassRows * v_dim; d += 16) store_f(o + d, zero_f());
}

static void merge_pass(Totals* total, const Pass* pass, int chunk, int v_dim) {
  float keep[16], join[16];
  merge_weights(total->m, total->l, load_f(pass->m), load_f(pass->l), keep, join);
  for (int i = 0; i < pass->rows; i++)
    if (sees_chunk(pass->first[i], pass->last[i], chunk))
      merge_values(total->o + i * v_dim, pass->o + i * v_dim, keep[i], join[i], v_dim);
}

struct Scratch {   // all of kAttentionGroupRows rows
  uint8_t* q;      // [passes][kPassRows * k_dim * 4]
  float* chunk_o;  // [passes][kPassRows][v_dim]
  float* total_o;
  Scratch(void* memory, const KVLayout* l) {
    q = (uint8_t*)memory;
    chunk_o = (float*)(q + (int64_t)kAttentionGroupRows * l->k_dim * 4);
    total_o = chunk_o + (int64_t)kAttentionGroupRows * l->v_dim;
  }
};

// Row = (token - row0) * group + head of the kv head.
static float* out_row(const AttentionArgs* a, int kv_head, int row0, int row, float* out) {
  return out + (row0 + row / a->group) * a->out_stride +
         (int64_t)(kv_head * a->group + row % a->group) * a->layout->v_dim;
}

static void attend_group(const AttentionArgs* a, int row0, int kv_head, int begin, int count, float* out, void* memory) {
  const Scratch scratch(memory, a->layout);
  const int v_dim = a->layout->v_dim;
  Group group;
  Totals totals[kAttentionGroupRows / kPassRows];
  begin_group(&group, a, kv_head, row0, begin, count, scratch.q, scratch.chunk_o);
  for (int i = 0; i < group.count; i++) begin_totals(totals + i, scratch.total_o + (int64_t)i * kPassRows * v_dim, v_dim);
  const int first_token = row0 + begin / a->group, end_token = row0 + (begin + count - 1) / a->group + 1;
  const int end_chunk = attention_end_chunk(a, end_token);
  for (int chunk = attention_first_chunk(a, first_token); chunk < end_chunk; chunk++) {
    walk_chunk(&group, a, kv_head, chunk, a->first_position + end_token);
    for (int i = 0; i < group.count; i++) merge_pass(totals + i, group.passes + i, chunk, v_dim);
  }
  for (int i = 0, row = begin; i < group.count; i++) {
    float factor[16];
    store_f(factor, div(set1_f(1.0f), load_f(totals[i].l)));
    for (int r = 0; r < group.passes[i].rows; r++, row++)
      scale_values(out_row(a, kv_head, row0, row, out), totals[i].o + r * v_dim, factor[r], v_dim);
  }
}

static void attend_rows(const AttentionArgs* a, int32_t row0, int32_t row1, int32_t kv_head, float* out, void* scratch) {
  const Split groups((row1 - row0) * a->group, kAttentionGroupRows);
  for (int i = 0; i < groups.count; i++)
    attend_group(a, row0, kv_head, groups.begin(i), groups.size(i), out, scratch);
}

// A partial is m[rows], l[rows], o[rows][v_dim].
static void attend_chunk(const AttentionArgs* a, int32_t row0, int32_t row1, int32_t kv_head, int32_t chunk,
                         float* partial, void* memory) {
  const Scratch scratch(memory, a->layout);
  const int rows = (row1 - row0) * a->group, v_dim = a->layout->v_dim;
  const Split groups(rows, kAttentionGroupRows);
  float *m = partial, *l = partial + rows, *o = partial + 2 * (int64_t)rows;
  Group group;
  for (int i = 0, row = 0; i < groups.count; i++) {
    begin_group(&group, a, kv_head, row0, groups.begin(i), groups.size(i), scratch.q, scratch.chunk_o);
    walk_chunk(&group, a, kv_head, chunk, a->first_position + row1);
    for (int j = 0; j < group.count; j++) {
      const Pass* pass = group.passes + j;
      __builtin_memcpy(m + row, pass->m, (size_t)pass->rows * 4);
      __builtin_memcpy(l + row, pass->l, (size_t)pass->rows * 4);
      __builtin_memcpy(o + (int64_t)row * v_dim, pass->o, (size_t)pass->rows * v_dim * 4);
      row += pass->rows;
    }
  }
}

static void merge_chunks(const AttentionArgs* a, int32_t row0, int32_t row1, int32_t kv_head, const float* partials,
                         float* out) {
  const int rows = (row1 - row0) * a->group, v_dim = a->layout->v_dim;
  const int first_chunk = attention_first_chunk(a, row0), end_chunk = attention_end_chunk(a, row1);
  const int64_t stride = attention_partial_floats(a, row0, row1);
  for (int row = 0; row < rows; row++) {
    float m[16], l[16], keep[16], join[16];
    store_f(m, set1_f(kNoMax));
    store_f(l, zero_f());
    float* o = out_row(a, kv_head, row0, row, out);
    for (int d = 0; d < v_dim; d += 16) store_f(o + d, zero_f());
    const int token = row0 + row / a->group;
    for (int chunk = first_chunk; chunk < end_chunk; chunk++) {
      if (!sees_chunk(attention_first_visible(a, token), a->first_position + token, chunk)) continue;
      const float* partial = partials + (chunk - first_chunk) * stride;
      merge_weights(m, l, set1_f(partial[row]), set1_f(partial[rows + row]), keep, join);
      merge_values(o, partial + 2 * (int64_t)rows + (int64_t)row * v_dim, keep[0], join[0], v_dim);
    }
    float factor[16];
    store_f(factor, div(set1_f(1.0f), load_f(l)));
    scale_values(o, o, factor[0], v_dim);
  }
}

const AttentionKernels* attention_kernels() {
  static const AttentionKernels kernels = {write_kv, attend_rows, attend_chunk, merge_chunks};
  return &kernels;
}

}  // namespace octavo::OCTAVO_ISA
