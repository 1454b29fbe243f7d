// tiles/attention.cpp: the entries of AttentionKernels at levels of tiles.
//
// K and V of bf16 go through tiles whatever the number of rows, for their bits are others than
// those of vectors. Those of int8 have one set of bits, and go through tiles where rows are many:
// few are bound by memory. All else is avx512's.
#include "kernels/tiles/attention_walk.h"
// Behind it: these call what it has.
#include "kernels/attention_rows.h"
#include "kernels/tiles/attention.h"
#include "kernels/tiles/avx512.h"

namespace octavo::OCTAVO_ISA {

constexpr int32_t kLeastByteRows = 8;  // (token, head) rows that tiles are worth it for

static const AttentionKernels* kernels_for(const AttentionArgs* a, int32_t tokens) {
  static constexpr AttentionKernels of_bf16{nullptr, attend_rows, attend_chunk, merge_chunks};
  const KVLayout* l = a->layout;
  if (l->k_format == KV_BF16 && l->v_format == KV_BF16) return &of_bf16;
  if (l->k_format == KV_INT8 && l->v_format == KV_INT8 && tokens * a->group >= kLeastByteRows)
    return byte_attention_kernels();
  return avx512::attention_kernels();
}

static void write_kv(const KVLayout* layout, uint8_t* pages, int32_t block, int32_t slot,
                     int32_t layer, int32_t kv_head, const float* k, const float* v) {
  avx512::attention_kernels()->write_kv(layout, pages, block, slot, layer, kv_head, k, v);
}

static void attend_rows_of_any(const AttentionArgs* a, int32_t row0, int32_t row1, int32_t kv_head,
                               float* out, void* scratch) {
  kernels_for(a, row1 - row0)->attend_rows(a, row0, row1, kv_head, out, scratch);
}

static void attend_chunk_of_any(const AttentionArgs* a, int32_t row0, int32_t row1, int32_t kv_head,
                                int32_t chunk, float* partial, void* scratch) {
  kernels_for(a, row1 - row0)->attend_chunk(a, row0, row1, kv_head, chunk, partial, scratch);
}

const AttentionKernels* attention_kernels() {
  static constexpr AttentionKernels kernels{write_kv, attend_rows_of_any, attend_chunk_of_any,
                                            merge_chunks};
  return &kernels;
}

}  // namespace octavo::OCTAVO_ISA
