// attention.h: paged attention and the writers of its pages, as function pointers of one ISA level,
// and their sizes.
//
// Knows the pages of one layer group, and one sequence at a time or what several have in the same
// blocks. Knows nothing of threads, batches or who owns a page.
//
// Exactness: a row is one query token of one head. Its result depends on its q, its position, the
// window and the K and V that it sees, on nothing else: KV is walked in tiles of 64 tokens and
// chunks of 256, both at absolute positions, sinks before what else is in their tile, and so the
// beginning that a far row sees apart from its window; chunks are merged in index order, and then
// the head's sink logit; attend_rows == attend_chunk + merge_chunks, bit for bit. What a row does
// not see may hold anything. Slopes of 0 are as none.
#pragma once
#include <cstddef>
#include <cstdint>

#include "kv_formats.h"

namespace octavo {

constexpr int32_t kAttentionTile = 64;
constexpr int32_t kAttentionChunk = 256;
constexpr int32_t kAttentionGroupRows = 48;  // (token, head) rows that share one walk over the KV
constexpr int32_t kAttentionMaxGroup = 128;
constexpr int32_t kAttentionMaxDim = 576;
constexpr float kLeastSoftcap = 1e-3f;  // far below any model's; scale / softcap stays finite
constexpr int32_t kAttentionMaxContext =
    1 << 30;  // the end of a chunk or of a prefetched tile is an int32 too

struct KVPlace {  // of a sequence's K and V in the layer, from a position on
  const int32_t* block_table;
  int32_t kv_head, position, end;  // positions are below end
};

// A sequence's first tokens, which int4 pages have not: in bf16 pages, in a block of their own.
struct KVSinks {
  const KVLayout* layout;
  const uint8_t* pages;  // 64-byte aligned
  int32_t block;
  int32_t end;  // positions below it; a block of them, or 0: there are none
};

struct AttentionArgs {  // rows of one sequence, in one layer; with q_rows, of several
  const KVLayout* layout;
  const uint8_t* pages;        // the layer group's range, 64-byte aligned
  const int32_t* block_table;  // entries are read only for blocks that some row sees
  const float* q;              // row r, query head h of the call: q + r * q_stride + h * k_dim
  int64_t q_stride;            // floats
  const int32_t* q_rows;       // null; or row r's q is that of row q_rows[r], of any sequence, and
                               // all rows are at first_position: each sees all of the chunk that is
                               // asked for, in the same blocks
  int64_t out_stride;          // floats; row r, head h: out + r * out_stride + h * v_dim
  int32_t layer;
  int32_t group;  // query heads of the call: those of one kv head, or some of them
  int32_t
      first_position;  // row r is at position first_position + r and sees positions up to its own
  int32_t rows;
  int32_t window;       // 0: all; else a row at p sees positions > p - window
  int32_t beginning;    // and positions below it; 0: none. A row at window + beginning or behind is
                        // far: it sees them with far_q, as the others see all
  const float* far_q;   // laid out as q; read of far rows alone, where there is a beginning
  float scale;          // of q.k, > 0
  const float* slopes;  // null; or of each head of the call: a score, scaled and capped, is raised
                        // by slope * (the key's position - the row's); not beside a beginning
  bool rounded_slopes;  // then they are bf16, and it is by scale * (b(the key's) - b(the row's)),
                        // b(p) = bf16(slope * bf16(p))
  const float* sink_logits;  // null; or of each head of the call: one more term of the softmax's
                             // denominator, as of a score that is scaled and capped, with no value
  float softcap;             // 0: none; else a score s (scaled) becomes softcap * tanh(s / softcap)
  const float* states;  // null; or states of rows over chunks, as attend_chunk leaves them: of row
  const int64_t* places;  // row0 of a call over its chunk number i from states + places[i] on, and
                          // behind it those of later rows; -1: there are none
  KVSinks sinks;          // where there are some, the window is 0
  KVPlace next;  // what the thread reads after these rows, asked for in their last tile; may be
                 // nothing (no table)
};

struct AttentionKernels {
  // One token's K and V of one kv head (float32, after RoPE) into its page. Never writes outside
  // the token's own bytes, so threads may write neighbouring tokens at once.
  void (*write_kv)(const KVLayout*, uint8_t* pages, int32_t block, int32_t slot, int32_t layer,
                   int32_t kv_head, const float* k, const float* v);
  // Rows [row0, row1) of the call's query heads, which are of this kv head.
  void (*attend_rows)(const AttentionArgs*, int32_t row0, int32_t row1, int32_t kv_head, float* out,
                      void* scratch);
  // The same cut in chunks: attend_chunk leaves the state of each row over the chunk (o, m, l:
  // attention_partial_floats of them), row after row; merge_chunks takes those of all chunks.
  // attend_rows takes what there is, and computes the others.
  void (*attend_chunk)(const AttentionArgs*, int32_t row0, int32_t row1, int32_t kv_head,
                       int32_t chunk, float* partial, void* scratch);
  void (*merge_chunks)(const AttentionArgs*, int32_t row0, int32_t row1, float* out);
};

static inline int32_t attention_position(const AttentionArgs* a, int32_t row) {
  return a->q_rows != nullptr ? a->first_position : a->first_position + row;
}
// Of its window; what a far row sees of the beginning is before that, and apart.
static inline int32_t attention_first_visible(const AttentionArgs* a, int32_t row) {
  const int32_t position = attention_position(a, row);
  return a->window > 0 && position >= a->window + a->beginning ? position - a->window + 1 : 0;
}
static inline int32_t attention_beginning(const AttentionArgs* a, int32_t row) {
  return attention_first_visible(a, row) > 0 ? a->beginning : 0;
}
static inline int32_t attention_end_chunk(const AttentionArgs* a, int32_t row1) {
  return attention_position(a, row1 - 1) / kAttentionChunk + 1;
}

// The chunks that hold what rows see: of the beginning those before the window's, [0, apart), then
// [first, end). They are counted from 0 on.
struct AttentionChunks {
  int32_t apart, first, end;
  int32_t count() const { return apart + end - first; }
  int32_t at(int32_t i) const { return i < apart ? i : first + i - apart; }
  int32_t number(int32_t chunk) const { return chunk < apart ? chunk : chunk - first + apart; }
};
static inline AttentionChunks attention_chunks(const AttentionArgs* a, int32_t row0, int32_t row1) {
  const int32_t first = attention_first_visible(a, row0) / kAttentionChunk,
                begun = (attention_beginning(a, row0) + kAttentionChunk - 1) / kAttentionChunk;
  return {begun < first ? begun : first, first, attention_end_chunk(a, row1)};
}
static inline bool attention_has_state(const AttentionArgs* a, int32_t row0, int32_t chunk) {
  return a->places != nullptr && chunk < attention_end_chunk(a, row0 + 1) &&
         a->places[attention_chunks(a, row0, row0 + 1).number(chunk)] >= 0;
}
// Floats of one (token, head) row's state over one chunk.
static inline int64_t attention_partial_floats(const KVLayout* layout) { return layout->v_dim + 2; }
// Of a tile's V, which is made of its K where pages have no other.
static inline int64_t attention_values_bytes(const KVLayout* layout) {
  return layout->v_aliases_k ? kAttentionTile * kv_row_bytes(layout->v_format, layout->v_dim) : 0;
}
// Scratch of one thread, 64-byte aligned; enough for any rows and any level.
static inline int64_t attention_scratch_bytes(const KVLayout* layout) {
  const int64_t rows = kAttentionGroupRows + 16;  // passes are padded to a size that has a kernel
  return rows * 4 * (2 * (int64_t)layout->k_dim + 2 * layout->v_dim) +
         2 * attention_values_bytes(layout);
}

struct KVAddress {
  const uint8_t *k, *v;
};
// Where the unit around a position begins: of a kv head's K, and of its V.
static inline KVAddress kv_address(const AttentionArgs* a, const int32_t* block_table,
                                   int32_t kv_head, int32_t position) {
  const KVLayout* l = a->layout;
  const int32_t shift = __builtin_ctz((uint32_t)l->block_size);  // a division would show in decode
  const KVUnit unit =
      kv_unit(l, block_table[position >> shift], a->layer, kv_head, position & (l->block_size - 1));
  return {a->pages + unit.k, a->pages + unit.v};
}

}  // namespace octavo
