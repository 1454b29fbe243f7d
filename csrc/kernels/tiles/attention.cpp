// tiles/attention.cpp: the entries of AttentionKernels at levels of tiles.
//
// K and V of bf16 go through tiles whatever the number of rows, for their bits are others than
// those of vectors; all else is avx512's.
#include "kernels/tiles/attention_walk.h"
// Behind it: these call what it has.
#include "kernels/attention_rows.h"
#include "kernels/tiles/avx512.h"

namespace octavo::OCTAVO_ISA {

static bool in_tiles(const AttentionArgs* a) {
  return a->layout->k_format == KV_BF16 && a->layout->v_format == KV_BF16;
}

static void write_kv(const KVLayout* layout, uint8_t* pages, int32_t block, int32_t slot,
                     int32_t layer, int32_t kv_head, const float* k, const float* v) {
  avx512::attention_kernels()->write_kv(layout, pages, block, slot, layer, kv_head, k, v);
}

static void attend_rows_of_any(const AttentionArgs* a, int32_t row0, int32_t row1, int32_t kv_head,
                               float* out, void* scratch) {
  const auto attend = in_tiles(a) ? attend_rows : avx512::attention_kernels()->attend_rows;
  attend(a, row0, row1, kv_head, out, scratch);
}

static void attend_chunk_of_any(const AttentionArgs* a, int32_t row0, int32_t row1, int32_t kv_head,
                                int32_t chunk, float* partial, void* scratch) {
  const auto attend = in_tiles(a) ? attend_chunk : avx512::attention_kernels()->attend_chunk;
  attend(a, row0, row1, kv_head, chunk, partial, scratch);
}

const AttentionKernels* attention_kernels() {
  static constexpr AttentionKernels kernels{write_kv, attend_rows_of_any, attend_chunk_of_any,
                                            merge_chunks};
  return &kernels;
}

}  // namespace octavo::OCTAVO_ISA
