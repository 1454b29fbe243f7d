// tiles/attention_bytes.cpp: the entries of AttentionKernels for int8 pages in tiles.
#include "kernels/tiles/attention_bytes.h"
// Behind it: these call what it has.
#include "kernels/attention_rows.h"
#include "kernels/tiles/attention.h"
#include "kernels/tiles/avx512.h"

namespace octavo::OCTAVO_ISA {

const AttentionKernels* byte_attention_kernels() {
  static const AttentionKernels kernels{avx512::attention_kernels()->write_kv, attend_rows,
                                        attend_chunk, merge_chunks};
  return &kernels;
}

}  // namespace octavo::OCTAVO_ISA
