// attention_rows.h: rows in one go, or chunk by chunk and merged, with the same bits.
//
// Who includes it has defined begin_group and walk_chunk: how a group's q is packed, and how it
// goes through a chunk.
#pragma once
#include "kernels/attention_group.h"
#include "kernels/attention_softmax.h"

namespace octavo::OCTAVO_ISA {

OCTAVO_INLINE bool sees_chunk(int first, int last, int beginning, int chunk) {
  return (first < (chunk + 1) * kAttentionChunk && last >= chunk * kAttentionChunk) ||
         beginning > chunk * kAttentionChunk;
}

struct Totals {  // of one pass, over the chunks so far
  float m[16], l[16];
  float* o;  // [kPassRows][v_dim]
};

static void begin_totals(Totals* total, float* o, int v_dim) {
  store_f(total->m, set1_f(kNoMax));
  store_f(total->l, zero_f());
  total->o = o;
  for (int d = 0; d < kPassRows * v_dim; d += 16) store_f(o + d, zero_f());
}

static void merge_pass(Totals* total, const Pass* pass, const AttentionArgs* a, int chunk,
                       int v_dim) {
  float keep[16], join[16];
  const f32x16 m = a->slopes == nullptr ? load_f(pass->m)
                                        : seen_from_rows(load_f(pass->m), a, pass->slope,
                                                         pass->last, pass->rows, chunk);
  merge_weights(total->m, total->l, m, load_f(pass->l), keep, join);
  for (int i = 0; i < pass->rows; i++)
    if (sees_chunk(pass->first[i], pass->last[i], pass->beginning[i], chunk))
      merge_values(total->o + i * v_dim, pass->o + i * v_dim, keep[i], join[i], v_dim);
}

struct Scratch {   // all of kAttentionGroupRows rows
  uint8_t* q;      // [passes][kPassRows * k_dim * 4], and as much again for sinks or a beginning
  float* chunk_o;  // [passes][kPassRows][v_dim]
  float* total_o;
  uint8_t* values;
  Scratch(void* memory, const KVLayout* l) {
    q = (uint8_t*)memory;
    chunk_o = (float*)(q + 2 * packed_q_bytes(l));
    total_o = chunk_o + (int64_t)kAttentionGroupRows * l->v_dim;
    values = (uint8_t*)(total_o + (int64_t)kAttentionGroupRows * l->v_dim);
  }
};

static void give_room(Group* group, const Scratch& scratch, const KVLayout* l) {
  group->values[0] = scratch.values;
  group->values[1] = scratch.values + attention_values_bytes(l);
}

// Row = (token - row0) * group + head of the call.
static float* out_row(const AttentionArgs* a, int row0, int row, float* out) {
  return out + (row0 + row / a->group) * a->out_stride +
         (int64_t)(row % a->group) * a->layout->v_dim;
}

// The states of rows [begin, ...) of the call over a chunk, in place of a walk.
static void take_states(Group* group, const AttentionArgs* a, const float* state) {
  const int v_dim = a->layout->v_dim;
  for (int i = 0; i < group->count; i++) {
    Pass* pass = group->passes + i;
    store_f(pass->m, set1_f(kNoMax));
    store_f(pass->l, zero_f());
    for (int r = 0; r < pass->rows; r++, state += attention_partial_floats(a->layout)) {
      __builtin_memcpy(pass->o + (int64_t)r * v_dim, state, (size_t)v_dim * 4);
      pass->m[r] = state[v_dim];
      pass->l[r] = state[v_dim + 1];
    }
  }
}

static const float* states_of(const AttentionArgs* a, int row0, int row, int chunk) {
  return a->states + a->places[attention_chunks(a, row0, row0 + 1).number(chunk)] +
         row * attention_partial_floats(a->layout);
}

// Of 16 rows of the call from `row` on; null: there are none.
static const float* sinks_of(const AttentionArgs* a, int row, float* sinks) {
  if (a->sink_logits == nullptr) return nullptr;
  for (int i = 0; i < 16; i++) sinks[i] = a->sink_logits[(row + i) % a->group];
  return sinks;
}

static void attend_group(const AttentionArgs* a, int row0, int kv_head, int begin, int count,
                         float* out, void* memory) {
  const Scratch scratch(memory, a->layout);
  const int v_dim = a->layout->v_dim;
  Group group;
  Totals totals[kAttentionGroupRows / kPassRows];
  give_room(&group, scratch, a->layout);
  begin_group(&group, a, row0, begin, count, scratch.q, scratch.chunk_o);
  for (int i = 0; i < group.count; i++)
    begin_totals(totals + i, scratch.total_o + (int64_t)i * kPassRows * v_dim, v_dim);
  const int first_token = row0 + begin / a->group,
            end_token = row0 + (begin + count - 1) / a->group + 1;
  const AttentionChunks chunks = attention_chunks(a, first_token, end_token);
  for (int each = 0; each < chunks.count(); each++) {
    const int chunk = chunks.at(each);
    if (attention_has_state(a, row0, chunk))
      take_states(&group, a, states_of(a, row0, begin, chunk));
    else walk_chunk(&group, a, kv_head, chunk, attention_position(a, end_token - 1) + 1);
    for (int i = 0; i < group.count; i++) merge_pass(totals + i, group.passes + i, a, chunk, v_dim);
  }
  for (int i = 0, row = begin; i < group.count; i++) {
    float factor[16], sinks[16];
    store_f(factor, last_factors(totals[i].m, totals[i].l, sinks_of(a, row, sinks)));
    for (int r = 0; r < group.passes[i].rows; r++, row++)
      scale_values(out_row(a, row0, row, out), totals[i].o + r * v_dim, factor[r], v_dim);
  }
}

static void attend_rows(const AttentionArgs* a, int32_t row0, int32_t row1, int32_t kv_head,
                        float* out, void* scratch) {
  const Split groups((row1 - row0) * a->group, kAttentionGroupRows);
  for (int i = 0; i < groups.count; i++)
    attend_group(a, row0, kv_head, groups.begin(i), groups.size(i), out, scratch);
}

static void attend_chunk(const AttentionArgs* a, int32_t row0, int32_t row1, int32_t kv_head,
                         int32_t chunk, float* partial, void* memory) {
  const Scratch scratch(memory, a->layout);
  const int v_dim = a->layout->v_dim;
  const Split groups((row1 - row0) * a->group, kAttentionGroupRows);
  Group group;
  give_room(&group, scratch, a->layout);
  for (int i = 0; i < groups.count; i++) {
    begin_group(&group, a, row0, groups.begin(i), groups.size(i), scratch.q, scratch.chunk_o);
    walk_chunk(&group, a, kv_head, chunk, attention_position(a, row1 - 1) + 1);
    for (int j = 0; j < group.count; j++) {
      const Pass* pass = group.passes + j;
      for (int r = 0; r < pass->rows; r++, partial += attention_partial_floats(a->layout)) {
        __builtin_memcpy(partial, pass->o + (int64_t)r * v_dim, (size_t)v_dim * 4);
        partial[v_dim] = pass->m[r];
        partial[v_dim + 1] = pass->l[r];
      }
    }
  }
}

static void merge_chunks(const AttentionArgs* a, int32_t row0, int32_t row1, float* out) {
  const int rows = (row1 - row0) * a->group, v_dim = a->layout->v_dim;
  const AttentionChunks chunks = attention_chunks(a, row0, row1);
  for (int row = 0; row < rows; row++) {
    float m[16], l[16], keep[16], join[16];
    store_f(m, set1_f(kNoMax));
    store_f(l, zero_f());
    float* o = out_row(a, row0, row, out);
    for (int d = 0; d < v_dim; d += 16) store_f(o + d, zero_f());
    const int token = row0 + row / a->group, position = attention_position(a, token);
    for (int each = 0; each < chunks.count(); each++) {
      const int chunk = chunks.at(each);
      if (!sees_chunk(attention_first_visible(a, token), position, attention_beginning(a, token),
                      chunk))
        continue;
      const float* state = states_of(a, row0, row, chunk);
      f32x16 chunk_m = set1_f(state[v_dim]);
      if (a->slopes != nullptr)
        chunk_m = seen_from_rows(chunk_m, a, a->slopes + row % a->group, &position, 1, chunk);
      merge_weights(m, l, chunk_m, set1_f(state[v_dim + 1]), keep, join);
      merge_values(o, state, keep[0], join[0], v_dim);
    }
    float factor[16], sinks[16];
    store_f(factor, last_factors(m, l, sinks_of(a, row, sinks)));
    scale_values(o, o, factor[0], v_dim);
  }
}

}  // namespace octavo::OCTAVO_ISA
