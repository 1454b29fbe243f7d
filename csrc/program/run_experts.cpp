// run_experts.cpp: rows meet the experts that Route chose for them. An expert's matrices are read
// once a step, whoever meets it.
//
// In phases: pairs are put in the order of their experts; their rows are packed; gate and up; down;
// each row's results are summed up, from its best expert on. What a row meets is its own matter
// alone, and no kernel's bits depend on which rows it is given beside.
#include <algorithm>

#include "program/run.h"

namespace octavo {
namespace {

// The one of [0, begin.size() - 1) whose range holds `at`.
int32_t holder(const std::vector<int32_t>& begin, int32_t at) {
  return (int32_t)(std::upper_bound(begin.begin() + 1, begin.end(), at) - begin.begin()) - 1;
}

// What Route wrote; whoever else wrote it, it is one of them.
int32_t expert_of(const OpRecord& op, float number) {
  return number >= 0.0f && number < (float)op.experts ? (int32_t)number : 0;
}

}  // namespace

void Run::route(const OpRecord& op, int32_t index, int thread) {
  const Routing routing{op.experts,          op.used, op.score, op.expert_groups, op.groups_used,
                        op.renormalise != 0, op.scale};
  share_rows(index, s_.rows, thread, [&](int32_t row) {
    p_.kernels_->rows->route(&routing, rows_of(op.x, row), vector(op, 0), rows_of(op.out, row));
  });
}

void Run::experts(const OpRecord& op, int32_t index, int thread) {
  if (thread == 0) order_by_expert(op);
  pool_.barrier();
  const ExpertRows& x = expert_rows_;
  share(index, tile_count(x.pairs()), thread, [&](int32_t tile) {
    for (int32_t pair = tile * kMaxTile; pair < std::min((tile + 1) * kMaxTile, x.pairs()); ++pair)
      pack_pair(op, pair);
  });
  pool_.barrier();
  share(index, x.gate_begin.back(), thread, [&](int32_t unit) {
    const int32_t e = holder(x.gate_begin, unit);
    const Weight gate = expert_matrix(op, 0, e), up = expert_matrix(op, 1, e);
    const MatmulCut cut = gate_up_cut(gate, x.rows_of(e));
    gate_up_unit({gate, up, expert_bias(op, 0, e), expert_bias(op, 1, e)}, expert_acts(op, 0, e),
                 expert_acts(op, 1, e), expert_acts(op, 2, e), op.activation,
                 unit_of(cut, gate, unit - x.gate_begin[e]), thread);
  }, 1);
  pool_.barrier();
  float* made = reinterpret_cast<float*>(p_.expert_rows_.data() + x.at.made);
  share(index, x.down_begin.back(), thread, [&](int32_t unit) {
    const int32_t e = holder(x.down_begin, unit);
    const Weight down = expert_matrix(op, 2, e);
    const Acts acts = expert_acts(op, 2, e);
    const MatmulUnit u = unit_of(matmul_cut(down, acts), down, unit - x.down_begin[e]);
    p_.kernels_->matmul->matmul(&down, u.panel, u.end, &acts, u.tile0, u.tile1,
                                {expert_bias(op, 2, e)},
                                made + (int64_t)x.begin[e] * down.rows + u.panel * 16, down.rows);
  }, 2);
  pool_.barrier();
  share_rows(index, s_.rows, thread, [&](int32_t row) { sum_experts(op, row, thread); }, 3);
}

void Run::order_by_expert(const OpRecord& op) {
  ExpertRows& x = expert_rows_;
  const int32_t pairs = s_.rows * op.used;
  x.begin.assign(op.experts + 1, 0);
  x.gate_begin.assign(op.experts + 1, 0);
  x.down_begin.assign(op.experts + 1, 0);
  x.rows.resize(pairs);
  x.places.resize(pairs);
  x.at = expert_places(parts_, op, pairs);
  for (int32_t row = 0; row < s_.rows; ++row)
    for (int32_t rank = 0; rank < op.used; ++rank)
      ++x.begin[expert_of(op, rows_of(op.y, row)[rank]) + 1];
  for (int32_t e = 0; e < op.experts; ++e) x.begin[e + 1] += x.begin[e];
  x.next.assign(x.begin.begin(), x.begin.end() - 1);
  for (int32_t row = 0; row < s_.rows; ++row)
    for (int32_t rank = 0; rank < op.used; ++rank) {
      const int32_t pair = x.next[expert_of(op, rows_of(op.y, row)[rank])]++;
      x.rows[pair] = row;
      x.places[row * op.used + rank] = pair;
    }
  for (int32_t e = 0; e < op.experts; ++e) {
    const int32_t rows = x.rows_of(e);
    x.gate_begin[e + 1] =
        x.gate_begin[e] + (rows ? gate_up_cut(expert_matrix(op, 0, e), rows).units() : 0);
    x.down_begin[e + 1] =
        x.down_begin[e] +
        (rows ? matmul_cut(expert_matrix(op, 2, e), expert_acts(op, 2, e)).units() : 0);
  }
}

// Its rows of gate (0), up (1) or down (2).
Weight Run::expert_matrix(const OpRecord& op, int i, int32_t expert) const {
  return stacked(matrix(op, i), op.experts, expert);
}

const float* Run::expert_bias(const OpRecord& op, int i, int32_t expert) const {
  const float* biases = vector(op, i);
  return biases == nullptr ? nullptr : biases + (int64_t)expert * (matrix(op, i).rows / op.experts);
}

// The rows that its gate, its up or its down reads.
Acts Run::expert_acts(const OpRecord& op, int i, int32_t expert) const {
  const int32_t kind = op.row_kind[i], cols = matrix(op, i).cols;
  const int64_t offset = expert_acts_offset(kind, cols, expert_rows_.begin[expert], expert);
  return {p_.expert_rows_.data() + expert_rows_.at.in[i] + offset, kind,
          expert_rows_.rows_of(expert), cols};
}

void Run::pack_pair(const OpRecord& op, int32_t pair) {
  const ExpertRows& x = expert_rows_;
  const int32_t expert = holder(x.begin, pair), row = pair - x.begin[expert];
  const float* in = rows_of(op.x, x.rows[pair]);
  for (int i = 0; i < (x.at.in[1] == x.at.in[0] ? 1 : 2); ++i) {
    const Acts acts = expert_acts(op, i, expert);
    p_.kernels_->matmul->quantize_rows(in, acts.cols, &acts, row, row + 1, 0, acts.cols);
  }
}

void Run::sum_experts(const OpRecord& op, int32_t row, int thread) {
  const RowKernels& k = *p_.kernels_->rows;
  const int32_t width = parts_.buffers[op.out].width;
  const float* factors = rows_of(op.y, row) + op.used;
  const float* made = reinterpret_cast<float*>(p_.expert_rows_.data() + expert_rows_.at.made);
  // Not in place: what is added may lie there.
  float* sum = reinterpret_cast<float*>(p_.scratch_[thread]);
  for (int32_t rank = 0; rank < op.used; ++rank) {
    const float* y = made + (int64_t)expert_rows_.places[row * op.used + rank] * width;
    if (rank == 0) k.scale(y, factors[0], width, sum);
    else k.add_scaled(y, factors[rank], width, sum);
  }
  if (op.add < 0) return k.scale(sum, op.scale, width, rows_of(op.out, row));
  if (op.scale != 1.0f) k.scale(sum, op.scale, width, sum);
  k.add(sum, rows_of(op.add, row), width, rows_of(op.out, row));
}

}  // namespace octavo
