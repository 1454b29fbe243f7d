// run_attention.cpp: which rows and chunks of which heads are a unit of attention, and where its
// rows go.
#include <algorithm>
#include <cstring>

#include "program/run.h"

namespace octavo {

AttentionArgs Run::attention_args(const OpRecord& op, int32_t seq) {
  const LayerGroup& group = parts_.groups[op.group];
  const int32_t row = s_.row_starts[seq];
  AttentionArgs a{};
  a.layout = &group.layout;
  a.pages = group.pages;
  a.block_table = block_table(op.group, seq);
  a.q = rows_of(op.x, row);
  a.q_stride = parts_.buffers[op.x].width;
  a.out_stride = (int64_t)op.heads * group.layout.v_dim;
  a.layer = op.layer;
  a.group = op.heads / group.layout.kv_heads;
  a.first_position = s_.positions[row];
  a.rows = s_.row_starts[seq + 1] - row;
  a.window = group.window;
  a.scale = op.scale;
  a.softcap = op.softcap;
  return a;
}

// Tokens of a unit of `heads` heads, the blocks of heads of a kv head being `blocks`: fewer where
// there are so few units that threads would wait for the last one.
int32_t Run::unit_tokens(int32_t kv_heads, int32_t heads, int32_t blocks) const {
  for (int32_t rows = kUnitAttentionRows;; rows /= 2) {
    const int32_t tokens = std::max(1, rows / heads);
    int32_t units = 0;
    for (int32_t seq = 0; seq < s_.seqs; ++seq)
      units += divide_up(s_.row_starts[seq + 1] - s_.row_starts[seq], tokens);
    if (rows <= kLeastUnitAttentionRows || units * kv_heads * blocks >= 4 * p_.threads_)
      return tokens;
  }
}

// The units of a layer group, the same for each of its layers. Few short rows are cut into chunks,
// so that one long sequence keeps every thread busy; bits do not depend on it.
void Run::plan_attention(int32_t group) {
  const OpRecord* op = nullptr;
  for (const OpRecord& o : parts_.ops)
    if ((o.code == kAttend || o.code == kAttendQuantize) && o.group == group) op = &o;
  if (op == nullptr) return;
  const int32_t kv_heads = parts_.groups[group].layout.kv_heads, group_heads = op->heads / kv_heads;
  const int32_t blocks = divide_up(group_heads, kUnitAttentionHeads),
                heads = std::min(group_heads, kUnitAttentionHeads);
  const int32_t most = std::max(1, kUnitAttentionRows / heads),
                even = unit_tokens(kv_heads, heads, blocks);
  const bool few = s_.seqs * kv_heads * blocks < 8 * p_.threads_;
  std::vector<AttentionUnit>& units = units_[group];
  for (int32_t seq = 0; seq < s_.seqs; ++seq) {
    const AttentionArgs a = attention_args(*op, seq);
    const int32_t unit_rows = a.rows <= kChunkedRows ? most : even;
    for (int32_t row0 = 0; row0 < a.rows; row0 += unit_rows) {
      AttentionUnit unit{};
      unit.seq = seq;
      unit.row0 = row0;
      unit.row1 = std::min(row0 + unit_rows, a.rows);
      for (unit.kv_head = 0; unit.kv_head < kv_heads; ++unit.kv_head)
        plan_heads(units, a, unit, few && a.rows <= kChunkedRows);
    }
  }
  std::stable_sort(units.begin(), units.end(),
                   [](const AttentionUnit& x, const AttentionUnit& y) { return x.cost > y.cost; });
}

// The units of one kv head's rows. Those of one chunk stand together: the K and V that they share
// are read from memory by the first.
void Run::plan_heads(std::vector<AttentionUnit>& units, AttentionArgs a, AttentionUnit unit,
                     bool split) {
  const int32_t first = attention_first_chunk(&a, unit.row0),
                chunks = attention_end_chunk(&a, unit.row1) - first, group = a.group;
  const int32_t blocks = divide_up(group, kUnitAttentionHeads), arrival = num_arrivals_;
  const int64_t partials = num_partials_;
  split = split && chunks > 1;
  for (int32_t c = 0; c < (split ? chunks : 1); ++c) {
    int64_t base = partials;  // of the block's first chunk
    for (int32_t block = 0; block < blocks; ++block) {
      const int32_t begin = block * kUnitAttentionHeads;
      unit.head = unit.kv_head * group + begin;
      unit.heads = a.group = std::min(group - begin, kUnitAttentionHeads);
      unit.chunk = first + c;
      unit.cost = (int64_t)(unit.row1 - unit.row0) * unit.heads * (split ? 1 : chunks);
      if (split) {
        const int64_t floats = attention_partial_floats(&a, unit.row0, unit.row1);
        unit.chunks = chunks;
        unit.arrival = arrival + block;
        unit.partial_base = base;
        unit.partial = base + c * floats;
        base += chunks * floats;
      }
      units.push_back(unit);
    }
    if (split) num_partials_ = base;
  }
  if (split) num_arrivals_ += blocks;
}

void Run::attend(const OpRecord& op, int32_t index, int thread) {
  const std::vector<AttentionUnit>& units = units_[op.group];
  const KVLayout& layout = parts_.groups[op.group].layout;
  const int64_t scratch_floats = align64(attention_scratch_bytes(&layout)) / 4;
  float* staged = reinterpret_cast<float*>(p_.scratch_[thread]) + scratch_floats;
  share(index, (int32_t)units.size(), thread, [&](int32_t i) {
    const AttentionUnit& u = units[i];
    AttentionArgs a = attention_args(op, u.seq);
    if (i + 1 < (int32_t)units.size()) a.next = kv_place(op, units[i + 1]);
    const int32_t columns = u.heads * layout.v_dim, k0 = u.head * layout.v_dim;
    a.group = u.heads;
    a.q += (int64_t)u.head * layout.k_dim;
    float* out;
    if (op.code == kAttend) {
      out = rows_of(op.out, s_.row_starts[u.seq]) + k0;
    } else {  // the unit's columns of these rows only, on their way to the packed rows
      a.out_stride = columns;
      out = staged - u.row0 * a.out_stride;
    }
    if (!attend_unit(u, a, out, thread)) return;
    if (op.code == kAttendQuantize) {
      const Acts acts = acts_of(op.out);
      const int32_t first = s_.row_starts[u.seq];
      p_.kernels_->matmul->pack_rows(staged, a.out_stride, acts, first + u.row0, first + u.row1, k0,
                                     k0 + columns);
    }
  });
}

// Where a unit begins to read.
KVPlace Run::kv_place(const OpRecord& op, const AttentionUnit& u) {
  const AttentionArgs a = attention_args(op, u.seq);
  const int32_t chunk = u.chunks == 0 ? 0 : u.chunk * kAttentionChunk,
                seen = attention_first_visible(&a, u.row0) / kKVUnit * kKVUnit;
  return {a.block_table, u.kv_head, std::max(chunk, seen), a.first_position + u.row1};
}

// True once `out` holds the unit's rows: for a chunk, on the thread that finished the last of them.
bool Run::attend_unit(const AttentionUnit& u, const AttentionArgs& a, float* out, int thread) {
  const AttentionKernels& k = *p_.kernels_->attention;
  if (u.chunks == 0) {
    k.attend_rows(&a, u.row0, u.row1, u.kv_head, out, p_.scratch_[thread]);
    return true;
  }
  k.attend_chunk(&a, u.row0, u.row1, u.kv_head, u.chunk, partials_.data() + u.partial,
                 p_.scratch_[thread]);
  // The counter runs on through the layers: every `chunks`-th arrival ends one.
  if ((arrivals_[u.arrival].fetch_add(1, std::memory_order_acq_rel) + 1) % u.chunks != 0)
    return false;
  k.merge_chunks(&a, u.row0, u.row1, partials_.data() + u.partial_base, out);
  return true;
}

}  // namespace octavo
