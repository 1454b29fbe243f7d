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
  a.beginning = group.beginning;
  if (a.beginning > 0) a.far_q = rows_of(op.y, row);
  if (group.sinks >= 0) {
    const LayerGroup& sinks = parts_.groups[group.sinks];
    a.sinks = {&sinks.layout, sinks.pages, block_table(group.sinks, seq)[0], group.sinks_end()};
  }
  a.scale = op.scale;
  a.softcap = op.softcap;
  a.sink_logits = vector(op, 0);
  if (op.slopes >= 0) {
    a.slopes = parts_.slopes[op.slopes].of_heads;
    a.rounded_slopes = parts_.slopes[op.slopes].rounded;
  }
  return a;
}

AttentionArgs Run::unit_args(const OpRecord& op, const AttentionUnit& u) {
  AttentionArgs a = attention_args(op, u.seq);
  a.group = u.heads;
  const int64_t head = (int64_t)u.head * parts_.groups[op.group].layout.k_dim;
  a.q += head;
  if (a.far_q != nullptr) a.far_q += head;
  if (a.sink_logits != nullptr) a.sink_logits += u.head;
  if (a.slopes != nullptr) a.slopes += u.head;
  if (u.places >= 0) {
    a.states = p_.partials_.data();
    a.places = attention_[op.group].places.data() + u.places;
  }
  return a;
}

AttentionArgs Run::shared_args(const OpRecord& op, const SharedUnit& u) {
  AttentionArgs a = attention_args(op, u.seq);
  a.group = u.heads;
  a.q = rows_of(op.x) + (int64_t)u.head * parts_.groups[op.group].layout.k_dim;
  if (a.slopes != nullptr) a.slopes += u.head;
  a.q_rows = attention_[op.group].q_rows.data() + u.q_rows;
  a.first_position = (u.chunk + 1) * kAttentionChunk - 1;
  a.rows = u.rows;
  a.window = a.beginning = 0;
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
    const LayerGroup& group = parts_.groups[op.group];
    const int32_t* sinks = group.sinks < 0 ? nullptr : block_table(group.sinks, 0);
    plan =
        octavo::plan_attention(s_, group, {block_table(op.group, 0), sinks}, op.heads, p_.threads_);
    arrivals_[op.group] = std::make_unique<std::atomic<int32_t>[]>(plan.splits);
    floats = std::max(floats, (size_t)plan.partial_floats);
  }
  if (p_.partials_.size() >= floats) return;
  p_.partials_.clear();                      // nothing of an earlier step is copied
  p_.partials_.resize(floats + floats / 4);  // sequences grow, and new memory takes its time
}

void Run::attend(const OpRecord& op, int32_t index, int thread) {
  const AttentionPlan& plan = attention_[op.group];
  if (!plan.shared.empty()) {
    attend_shared(op, index, thread);
    pool_.barrier();
  }
  const std::vector<AttentionUnit>& units = plan.units;
  share(index, (int32_t)units.size(), thread, [&](int32_t i) {
    const AttentionUnit& u = units[i];
    AttentionArgs a = unit_args(op, u);
    if (i + 1 < (int32_t)units.size()) a.next = kv_place(op, units[i + 1]);
    const AttentionKernels& k = *p_.kernels_->attention;
    if (u.chunk < 0) {
      attend_to(op, u, thread, [&](int64_t out_stride, float* out) {
        a.out_stride = out_stride;
        k.attend_rows(&a, u.row0, u.row1, u.kv_head, out, p_.scratch_[thread]);
      });
      return;
    }
    k.attend_chunk(&a, u.row0, u.row1, u.kv_head, u.chunk, p_.partials_.data() + u.partial,
                   p_.scratch_[thread]);
    std::atomic<int32_t>& arrivals = arrivals_[op.group][u.split];
    if ((arrivals.fetch_add(1, std::memory_order_acq_rel) + 1) % u.split_chunks != 0) return;
    attend_to(op, u, thread, [&](int64_t out_stride, float* out) {
      a.out_stride = out_stride;
      k.merge_chunks(&a, u.row0, u.row1, out);
    });
  }, 1);
}

// The states that rows of several sequences have over what they share.
void Run::attend_shared(const OpRecord& op, int32_t index, int thread) {
  const std::vector<SharedUnit>& units = attention_[op.group].shared;
  share(index, (int32_t)units.size(), thread, [&](int32_t i) {
    const SharedUnit& u = units[i];
    AttentionArgs a = shared_args(op, u);
    if (i + 1 < (int32_t)units.size()) {
      const SharedUnit& next = units[i + 1];
      a.next = {block_table(op.group, next.seq), next.kv_head,
                std::max(next.chunk * kAttentionChunk, a.sinks.end),
                (next.chunk + 1) * kAttentionChunk};
    }
    p_.kernels_->attention->attend_chunk(&a, 0, u.rows, u.kv_head, u.chunk,
                                         p_.partials_.data() + u.partial, p_.scratch_[thread]);
  });
}

// Calls compute(out_stride, out) for rows that become columns of the op's output, or are staged on
// their way to its packed rows.
template <class Compute>
void Run::attend_to(const OpRecord& op, const AttentionRows& rows, int thread, Compute compute) {
  const KVLayout& layout = parts_.groups[op.group].layout;
  const int32_t v_dim = layout.v_dim, k0 = rows.head * v_dim, columns = rows.heads * v_dim,
                first = s_.row_starts[rows.seq];
  if (op.code == kAttend) return compute((int64_t)op.heads * v_dim, rows_of(op.out, first) + k0);
  float* staged =
      reinterpret_cast<float*>(p_.scratch_[thread] + align64(attention_scratch_bytes(&layout)));
  compute(columns, staged - (int64_t)rows.row0 * columns);
  const Acts acts = acts_of(op.out);
  p_.kernels_->matmul->quantize_rows(staged, columns, &acts, first + rows.row0, first + rows.row1,
                                     k0, k0 + columns);
}

// Where a unit begins to read, behind the sinks: chunks that have states are not.
KVPlace Run::kv_place(const OpRecord& op, const AttentionUnit& u) {
  const AttentionArgs a = unit_args(op, u);
  int32_t chunk = u.chunk;
  if (chunk < 0)
    for (chunk = attention_first_visible(&a, u.row0) / kAttentionChunk;
         attention_has_state(&a, u.row0, chunk);)
      ++chunk;
  const int32_t visible = attention_first_visible(&a, u.row0) / kKVUnit * kKVUnit,
                seen = std::max(visible, a.sinks.end), end = a.first_position + u.row1;
  if (end <= a.sinks.end) return {};
  return {a.block_table, u.kv_head, std::min(std::max(chunk * kAttentionChunk, seen), end - 1),
          end};
}

}  // namespace octavo
