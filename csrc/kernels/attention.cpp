// attention.cpp: walks the pages of one sequence for one kv head: groups of rows, chunks, passes, tiles (see attention.h).
//
// A group is up to 48 (token, head) rows; its passes (at most kPassRows rows each) take turns inside a chunk, so that K and V
// come from memory once a group and from L2 afterwards.
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

static void prefetch_tile(const AttentionArgs* a, int kv_head, int tile, int end) {
  const int k_bytes = 16 * a->layout->k_dim * kv_type_bytes(a->layout->k_type);
  const int v_bytes = 16 * a->layout->v_dim * kv_type_bytes(a->layout->v_type);
  for (int position = tile; position < least(tile + kTile, end); position += 16) {
    const uint8_t *k = kv_k16(a, kv_head, position), *v = kv_v16(a, kv_head, position);
    for (int i = 0; i < k_bytes; i += 64) __builtin_prefetch(k + i, 0, 2);   // to L2: L1 is full of the tile at work
    for (int i = 0; i < v_bytes; i += 64) __builtin_prefetch(v + i, 0, 2);
  }
}

template <class T> static void add_values(Pass* pass, const uint8_t* const* v, int type, int v_dim) {
  const int last = pass->kernels->rows - 1;
  // Steps that every row sees whole; lo and hi grow with the row.
  const int begin = (pass->lo[last] + T::kTokens - 1) / T::kTokens, end = pass->hi[0] / T::kTokens;
  if (begin >= end) {   // none: each row for itself
    for (int i = 0; i < pass->rows; i++)
      row_values<T>(v, pass->lo[i] / T::kTokens, (pass->hi[i] + T::kTokens - 1) / T::kTokens, pass->lo[i], pass->hi[i],
                    pass->p[i], pass->alpha[i], v_dim, pass->o + i * v_dim);
    return;
  }
  for (int i = 0; i < pass->rows; i++) {
    if (pass->lo[i] / T::kTokens == begin) continue;
    row_values<T>(v, pass->lo[i] / T::kTokens, begin, pass->lo[i], kTile, pass->p[i], pass->alpha[i], v_dim,
                  pass->o + i * v_dim);
    pass->alpha[i] = 1.0f;
  }
  pass->kernels->values[type](v, begin, end, pass->p, pass->alpha, v_dim, pass->o);
  for (int i = 0; i < pass->rows; i++) {
    const int row_end = (pass->hi[i] + T::kTokens - 1) / T::kTokens;
    if (row_end > end) row_values<T>(v, end, row_end, 0, pass->hi[i], pass->p[i], 1.0f, v_dim, pass->o + i * v_dim);
  }
}

static void walk_tile(Pass* pass, const AttentionArgs* a, int kv_head, int tile, float c) {
  const int rows = pass->kernels->rows;
  for (int i = 0; i < rows; i++) {
    pass->lo[i] = least(most(pass->first[i] - tile, 0), kTile);
    pass->hi[i] = least(most(pass->last[i] + 1 - tile, 0), kTile);
  }
  const int s0 = pass->lo[0] / 16, s1 = (pass->hi[rows - 1] + 15) / 16;
  const uint8_t *k[4] = {}, *v[4] = {};
  for (int s = s0; s < s1; s++) {
    k[s] = kv_k16(a, kv_head, tile + s * 16);
    v[s] = kv_v16(a, kv_head, tile + s * 16);
  }
  pass->kernels->scores[a->layout->k_type](k, s0, s1, pass->q, a->layout->k_dim, pass->score[0]);
  tile_max(pass, s0, s1, c);
  if (a->layout->v_type == KV_BF16) {
    tile_weights<KV_BF16>(pass, s0, s1, c);
    add_values<Bf16>(pass, v, KV_BF16, a->layout->v_dim);
  } else {
    tile_weights<KV_F32>(pass, s0, s1, c);
    add_values<F32>(pass, v, KV_F32, a->layout->v_dim);
  }
}

// The state (m, l, o) of the pass over one chunk, from nothing.
static void walk_chunk(Pass* pass, const AttentionArgs* a, int kv_head, int chunk, bool prefetch) {
  const int rows = pass->kernels->rows;
  const float c = a->scale * 1.44269504f;
  const f32x16 zero = zero_f();
  store_f(pass->m, set1_f(kNoMax));
  store_f(pass->l, zero);
  for (int i = 0; i < rows; i++) store_f(pass->lane_l[i], zero);
  for (int d = 0; d < rows * a->layout->v_dim; d += 16) store_f(pass->o + d, zero);
  const int visible_end = pass->last[rows - 1] + 1;
  const int begin = most(chunk * kAttentionChunk, pass->first[0] / kTile * kTile);
  const int end = least((chunk + 1) * kAttentionChunk, visible_end);
  for (int tile = begin; tile < end; tile += kTile) {
    if (prefetch) prefetch_tile(a, kv_head, tile + kTile, visible_end);
    walk_tile(pass, a, kv_head, tile, c);
  }
  for (int i = 0; i < rows; i++) pass->l[i] = reduce_add(load_f(pass->lane_l[i]));
}

OCTAVO_INLINE bool sees_chunk(int first, int last, int chunk) {
  return first < (chunk + 1) * kAttentionChunk && last >= chunk * kAttentionChunk;
}

struct Totals {   // of one pass, over the chunks so far
  float m[16], l[16];
  float* o;       // [kPassRows][v_dim]
};

static void merge_pass(Totals* total, const Pass* pass, int chunk, int v_dim) {
  float keep[16], join[16];
  merge_weights(total->m, total->l, load_f(pass->m), load_f(pass->l), keep, join);
  for (int i = 0; i < pass->rows; i++)
    if (sees_chunk(pass->first[i], pass->last[i], chunk))
      merge_values(total->o + i * v_dim, pass->o + i * v_dim, keep[i], join[i], v_dim);
}

static void begin_totals(Totals* total, float* o, int v_dim) {
  store_f(total->m, set1_f(kNoMax));
  store_f(total->l, zero_f());
  total->o = o;
  for (int d = 0; d < kPassRows * v_dim; d += 16) store_f(o + d, zero_f());
}

struct Split {   // `rows` in `count` even runs of at most `most_rows`
  int rows, count;
  Split(int total, int most_rows) : rows(total), count((total + most_rows - 1) / most_rows) {}
  int begin(int i) const { return (int)((int64_t)rows * i / count); }
  int size(int i) const { return begin(i + 1) - begin(i); }
};

struct Scratch {
  uint8_t* q;      // [passes][kPassRows * k_dim * 4]
  float* total_o;  // [passes][kPassRows][v_dim]
  float* chunk_o;  // [kPassRows][v_dim]
  Scratch(void* memory, const KVLayout* l) {
    q = (uint8_t*)memory;
    total_o = (float*)(q + (int64_t)kAttentionGroupRows * l->k_dim * 4);
    chunk_o = total_o + (int64_t)kAttentionGroupRows * l->v_dim;
  }
};

constexpr int kMaxPasses = kAttentionGroupRows / kPassRows;

static float* out_row(const AttentionArgs* a, int kv_head, int row0, int row, float* out) {
  return out + (row0 + row / a->group) * a->out_stride +
         (int64_t)(kv_head * a->group + row % a->group) * a->layout->v_dim;
}

static void attend_group(const AttentionArgs* a, int row0, int kv_head, int begin, int count, float* out, void* memory) {
  const Scratch scratch(memory, a->layout);
  const Split passes(count, kPassRows);
  const int v_dim = a->layout->v_dim;
  Totals totals[kMaxPasses];
  Pass pass;
  const int64_t q_bytes = (int64_t)kPassRows * a->layout->k_dim * 4;
  for (int i = 0; i < passes.count; i++) {
    pack_pass(a, kv_head, row0, begin + passes.begin(i), passes.size(i), scratch.q + i * q_bytes);
    begin_totals(totals + i, scratch.total_o + (int64_t)i * kPassRows * v_dim, v_dim);
  }
  const int first_token = row0 + begin / a->group, end_token = row0 + (begin + count - 1) / a->group + 1;
  const int end_chunk = attention_end_chunk(a, end_token);
  for (int chunk = attention_first_chunk(a, first_token); chunk < end_chunk; chunk++) {
    for (int i = 0; i < passes.count; i++) {
      begin_pass(&pass, a, row0, begin + passes.begin(i), passes.size(i), scratch.q + i * q_bytes, scratch.chunk_o);
      walk_chunk(&pass, a, kv_head, chunk, i == 0);
      merge_pass(totals + i, &pass, chunk, v_dim);
    }
  }
  for (int i = 0; i < passes.count; i++) {
    float factor[16];
    store_f(factor, div(set1_f(1.0f), load_f(totals[i].l)));
    for (int r = 0; r < passes.size(i); r++)
      scale_values(out_row(a, kv_head, row0, begin + passes.begin(i) + r, out), totals[i].o + r * v_dim, factor[r], v_dim);
  }
}

static void attend_rows(const AttentionArgs* a, int32_t row0, int32_t row1, int32_t kv_head, float* out, void* scratch) {
  const Split groups((row1 - row0) * a->group, kAttentionGroupRows);
  for (int i = 0; i < groups.count; i++)
    attend_group(a, row0, kv_head, groups.begin(i), groups.size(i), out, scratch);
}

// A partial is m[rows], l[rows], o[rows][v_dim], row = (token - row0) * group + head.
static void attend_chunk(const AttentionArgs* a, int32_t row0, int32_t row1, int32_t kv_head, int32_t chunk,
                         float* partial, void* memory) {
  const Scratch scratch(memory, a->layout);
  const int rows = (row1 - row0) * a->group, v_dim = a->layout->v_dim;
  const Split passes(rows, kPassRows);
  float *m = partial, *l = partial + rows, *o = partial + 2 * (int64_t)rows;
  Pass pass;
  for (int i = 0; i < passes.count; i++) {
    const int begin = passes.begin(i);
    pack_pass(a, kv_head, row0, begin, passes.size(i), scratch.q);
    begin_pass(&pass, a, row0, begin, passes.size(i), scratch.q, scratch.chunk_o);
    walk_chunk(&pass, a, kv_head, chunk, i == 0);
    for (int r = 0; r < pass.rows; r++) {
      m[begin + r] = pass.m[r];
      l[begin + r] = pass.l[r];
    }
    __builtin_memcpy(o + (int64_t)begin * v_dim, pass.o, (size_t)pass.rows * v_dim * 4);
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
