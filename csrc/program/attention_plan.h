// attention_plan.h: how attention of a step is cut into units, for one layer group.
//
// A unit is what one thread computes in one go: rows of one sequence and query heads of one kv
// head, over all that they see; or over one chunk of it, and then of all sequences that have this
// chunk in the same blocks, so that what they share is read once. Partial states of chunks are
// merged by whoever finishes the last one of a row. Bits do not depend on any of it.
//
// Knows the step's shape and block tables. Knows nothing of pages, values or threads at work.
#pragma once
#include <cstdint>
#include <vector>

#include "program/program.h"
#include "program/step.h"

namespace octavo {

constexpr int32_t kUnitAttentionRows =
    kAttentionGroupRows;  // (token, head) rows of one unit of attention, at most
constexpr int32_t kLeastUnitAttentionRows = 12;  // a pass of the widest level
constexpr int32_t kChunkedRows = 8;              // tokens of a sequence that may be cut by chunks
// Query heads of one kv head in one unit of attention, whose K and V are read once for all of them:
// few enough that a kv head of many is work for several threads, and whole passes at every level.
constexpr int32_t kUnitAttentionHeads = 24;
static_assert(kUnitAttentionHeads * 16 % 32 == 0);  // their packed columns are whole groups

static inline int32_t divide_up(int32_t a, int32_t b) { return (a + b - 1) / b; }

struct AttentionRows {  // rows [row0, row1) of a sequence, counted from its first row
  int32_t seq, row0, row1;
  int32_t kv_head, head, heads;  // query heads [head, head + heads), all of one kv head
};

// Rows whose chunks are different units.
struct SplitRows : AttentionRows {
  int32_t chunks;
  int32_t places;  // where plan.places begins to say, chunk by chunk, where their partials are
};

// Of several sequences: seq is the first, and [row0, row1) counts the rows that q_rows names.
struct AttentionUnit : AttentionRows {
  int32_t chunk = 0;           // the one of a split unit
  int32_t begin = 0, end = 0;  // a split unit computes for rows plan.members[begin, end)
  int32_t q_rows = -1;  // where plan.q_rows names the batch's rows of all members; -1: one sequence
  int64_t partial = 0;  // float offset of its partial
  int64_t cost = 0;
  bool split() const { return end > begin; }
};

struct AttentionPlan {
  std::vector<AttentionUnit> units;  // the dearest first
  std::vector<SplitRows> splits;
  std::vector<int32_t> members;  // indices of splits
  std::vector<int32_t> q_rows;
  std::vector<int64_t> places;  // float offset of a chunk's partial of a split's rows
  int64_t partial_floats = 0;
};

// `query_heads` are those of any op of the group: all of them have as many.
AttentionPlan plan_attention(const Step& step, const LayerGroup& group, const int32_t* block_tables,
                             int32_t query_heads, int32_t threads);

}  // namespace octavo
