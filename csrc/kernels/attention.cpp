// attention.cpp: the entries of AttentionKernels at levels of vectors.
#include "kernels/attention_walk.h"
// Behind it: these call what it has.
#include "kernels/attention_rows.h"
#include "kernels/kv_write.h"

namespace octavo::OCTAVO_ISA {

const AttentionKernels* attention_kernels() {
  static const AttentionKernels kernels = {write_kv, attend_rows, attend_chunk, merge_chunks};
  return &kernels;
}

}  // namespace octavo::OCTAVO_ISA
