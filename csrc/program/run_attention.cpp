// run_attention.cpp: the units of attention at work, and where their rows go.
#include <algorithm>

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
  a.layer = op.layer;
  a.first_position = s_.positions[row];
  a.rows = s_.row_starts[seq + 1] - row;
  a.window = group.window;
  a.scale = op.scale;
  a.softcap = op.softcap;
  return a;
}

// Of a unit's own query heads.
AttentionArgs Run::unit_args(const OpRecord& op, const AttentionUnit& u) {
  AttentionArgs a = attention_args(op, u.seq);
  if (u.q_rows >= 0) {  // rows of several sequences that see all of the chunk
    a.q = rows_of(op.x);
    a.q_rows = attention_[op.group].q_rows.data() + u.q_rows;
    a.first_position = (u.chunk + 1) * kAttentionChunk - 1;
    a.rows = u.row1;
    a.window = 0;
  }
  a.group = u.heads;
  a.q += (int64_t)u.head * parts_.groups[op.group].layout.k_dim;
  return a;
}

// The units of each layer group, the same for all of its layers.
void Run::plan_attention() {
  attention_.resize(parts_.groups.size());
  arrivals_.resize(parts_.groups.size());
  size_t floats = 0;
  for (const OpRecord& op : parts_.ops) {
    if (op.code != kAttend && op.code != kAttendQuantize) continue;
    AttentionPlan& plan = attention_[op.group];
    if (!plan.units.empty()) continue;
    plan = octavo::plan_attention(s_, parts_.groups[op.group], block_table(op.group, 0), op.heads,
                                  p_.threads_);
    arrivals_[op.group] = std::make_unique<std::atomic<int32_t>[]>(plan.splits.size());
    floats = std::max(floats, (size_t)plan.partial_floats);
  }
  if (p_.partials_.size() >= floats) return;
  p_.partials_.clear();                      // nothing of an earlier step is copied
  p_.partials_.resize(floats + floats / 4);  // sequences grow, and new memory takes its time
}

void Run::attend(const OpRecord& op, int32_t index, int thread) {
  const std::vector<AttentionUnit>& units = attention_[op.group].units;
  const KVLayout& layout = parts_.groups[op.group].layout;
  const int64_t scratch_floats = align64(attention_scratch_bytes(&layout)) / 4;
  float* staged = reinterpret_cast<float*>(p_.scratch_[thread]) + scratch_floats;
  share(index, (int32_t)units.size(), thread, [&](int32_t i) {
    const AttentionUnit& u = units[i];
    AttentionArgs a = unit_args(op, u);
    if (i + 1 < (int32_t)units.size()) a.next = kv_place(op, units[i + 1]);
    if (u.split()) return attend_chunk(op, u, a, staged, thread);
    attend_to(op, u, staged, [&](int64_t out_stride, float* out) {
      a.out_stride = out_stride;
      p_.kernels_->attention->attend_rows(&a, u.row0, u.row1, u.kv_head, out, p_.scratch_[thread]);
    });
  });
}

// Calls compute(out_stride, out) for rows that become columns of the op's output, or are staged on
// their way to its packed rows.
template <class Compute>
void Run::attend_to(const OpRecord& op, const AttentionRows& rows, float* staged, Compute compute) {
  const int32_t v_dim = parts_.groups[op.group].layout.v_dim, k0 = rows.head * v_dim,
                columns = rows.heads * v_dim, first = s_.row_starts[rows.seq];
  if (op.code == kAttend) return compute((int64_t)op.heads * v_dim, rows_of(op.out, first) + k0);
  compute(columns, staged - (int64_t)rows.row0 * columns);
  p_.kernels_->matmul->pack_rows(staged, columns, acts_of(op.out), first + rows.row0,
                                 first + rows.row1, k0, k0 + columns);
}

// One chunk, then the rows of which it was the last one.
void Run::attend_chunk(const OpRecord& op, const AttentionUnit& u, const AttentionArgs& a,
                       float* staged, int thread) {
  const AttentionKernels& k = *p_.kernels_->attention;
  const AttentionPlan& plan = attention_[op.group];
  float* partials = p_.partials_.data();
  k.attend_chunk(&a, u.row0, u.row1, u.kv_head, u.chunk, partials + u.partial, p_.scratch_[thread]);
  for (int32_t i = u.begin; i < u.end; ++i) {
    const SplitRows& rows = plan.splits[plan.members[i]];
    std::atomic<int32_t>& arrivals = arrivals_[op.group][plan.members[i]];
    if ((arrivals.fetch_add(1, std::memory_order_acq_rel) + 1) % rows.chunks != 0) continue;
    AttentionArgs member = attention_args(op, rows.seq);
    member.group = rows.heads;
    attend_to(op, rows, staged, [&](int64_t out_stride, float* out) {
      member.out_stride = out_stride;
      k.merge_chunks(&member, rows.row0, rows.row1, partials, plan.places.data() + rows.places,
                     out);
    });
  }
}

// Where a unit begins to read.
KVPlace Run::kv_place(const OpRecord& op, const AttentionUnit& u) {
  const AttentionArgs a = unit_args(op, u);
  const int32_t chunk = u.split() ? u.chunk * kAttentionChunk : 0,
                seen = attention_first_visible(&a, u.row0) / kKVUnit * kKVUnit;
  return {a.block_table, u.kv_head, std::max(chunk, seen), attention_position(&a, u.row1 - 1) + 1};
}

}  // namespace octavo
