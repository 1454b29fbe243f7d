// attention_split.h: rows of one sequence chunk by chunk, as a program may cut them. For tests.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels/attention.h"

namespace octavo {

// Chunk by chunk, the last one first: any order will do. Of `shared` ones only those that all rows
// see, as where rows are of several sequences, the last row first; attend_rows takes what they
// left.
static void attend_split(const AttentionKernels& kernels, AttentionArgs args, int32_t kv_head,
                         bool shared, float* out, void* scratch) {
  const int32_t rows = args.rows;
  const AttentionChunks chunks = attention_chunks(&args, 0, rows);
  const int64_t row_floats = args.group * attention_partial_floats(args.layout);
  std::vector<float> states((size_t)(row_floats * rows * chunks.count()), __builtin_nanf(""));
  std::vector<int32_t> last_first(rows);
  for (int32_t row = 0; row < rows; row++) last_first[row] = rows - 1 - row;
  const auto seen_by_all = [&](int32_t chunk) {
    return attention_first_visible(&args, rows - 1) <= chunk * kAttentionChunk &&
           args.first_position >= (chunk + 1) * kAttentionChunk - 1;
  };
  for (int32_t each = chunks.count() - 1; each >= 0; each--) {
    const int32_t chunk = chunks.at(each);
    AttentionArgs a = args;
    if (shared) {
      if (!seen_by_all(chunk)) continue;
      a.q_rows = last_first.data();
      a.first_position = (chunk + 1) * kAttentionChunk - 1;
      a.window = a.beginning = 0;
    }
    kernels.attend_chunk(&a, 0, rows, kv_head, chunk, states.data() + each * rows * row_floats,
                         scratch);
  }
  std::vector<int64_t> places(chunks.count());
  args.states = states.data();
  args.places = places.data();
  for (int32_t row = 0; row < rows; row++) {
    const AttentionChunks own = attention_chunks(&args, row, row + 1);
    for (int32_t each = 0; each < own.count(); each++) {
      const int32_t chunk = own.at(each);
      const int32_t at = chunks.number(chunk) * rows + (shared ? last_first[row] : row);
      places[each] = shared && !seen_by_all(chunk) ? -1 : at * row_floats;
    }
    if (shared) kernels.attend_rows(&args, row, row + 1, kv_head, out, scratch);
    else kernels.merge_chunks(&args, row, row + 1, out);
  }
}

}  // namespace octavo
