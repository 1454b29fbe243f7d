// attention_plan.h: how attention of a step is cut into units, for one layer group.
//
// A unit is what one thread computes in one go: rows of one sequence and query heads of one kv
// head. What several sequences have in the same blocks, a chunk of 256 tokens or more, they walk
// together first, so that it is read once: a unit of a shared chunk leaves a partial state for each
// row, which the row's own unit takes. Bits do not depend on any of it.
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

struct AttentionUnit : AttentionRows {
  int32_t places = -1;  // where plan.places begins to say, chunk by chunk of those of the rows,
                        // where states of its rows lie; -1: there are none
  int32_t chunk = -1;   // the only one that it computes; -1: all without a state
  int32_t split = -1;   // which rows a chunk is of, counted from 0, whose chunks are units
  int32_t split_chunks = 0;  // as many units
  int64_t partial = 0;       // float offset of its states, of a chunk
  int64_t cost = 0;
};

struct SharedUnit {  // all of a chunk for rows of several sequences
  int32_t seq;       // one that has it
  int32_t kv_head, head, heads;
  int32_t chunk;
  int32_t q_rows, rows;  // the batch's rows, plan.q_rows[q_rows, q_rows + rows)
  int64_t partial;
};

struct AttentionPlan {
  std::vector<SharedUnit> shared;    // all done before the others begin
  std::vector<AttentionUnit> units;  // the dearest first
  std::vector<int32_t> q_rows;
  std::vector<int64_t> places;  // float offsets of states; -1: the chunk has none
  int32_t splits = 0;
  int64_t partial_floats = 0;
};

struct GroupTables {  // (sequences, max_blocks)
  const int32_t* blocks;
  const int32_t* sinks;  // of the group's sinks; null: it has none
};
// `query_heads` are those of any op of the group: all of them have as many.
AttentionPlan plan_attention(const Step& step, const LayerGroup& group, const GroupTables& tables,
                             int32_t query_heads, int32_t threads);

}  // namespace octavo
