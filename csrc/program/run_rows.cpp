// run_rows.cpp: ops that work on one row at a time, shared out by activation tile.
#include <algorithm>
#include <cstring>

#include "pack/pack.h"
#include "program/run.h"

namespace octavo {

void Run::embed(const OpRecord& op, int32_t index, int thread) {
  if (op.table >= 0) return gather(op, index, thread);
  const int32_t width = parts_.buffers[op.out].width;
  float* position = reinterpret_cast<float*>(p_.scratch_[thread]);
  share_rows(index, s_.rows, thread, [&](int32_t row) {
    const bool alone = op.matrix[0] < 0;
    if (!alone)
      p_.kernels_->matmul->expand_row(&matrix(op, 0), s_.tokens[row], rows_of(op.out, row));
    if (op.matrix[1] < 0) return;
    p_.kernels_->matmul->expand_row(&matrix(op, 1), s_.positions[row] + op.offset,
                                    alone ? rows_of(op.out, row) : position);
    if (!alone) p_.kernels_->rows->add(rows_of(op.out, row), position, width, rows_of(op.out, row));
  });
}

// Rows of a table in a file: what was not read before is read from the disk now, on all threads.
void Run::gather(const OpRecord& op, int32_t index, int thread) {
  const FileTable& table = parts_.tables[op.table];
  share_rows(index, s_.rows, thread, [&](int32_t row) {
    dequantize_blocks(table.ggml_type, table.data + s_.tokens[row] * table.row_bytes,
                      table.row_blocks, rows_of(op.out, row));
  });
}

void Run::slice(const OpRecord& op, int32_t index, int thread) {
  const size_t bytes = (size_t)parts_.buffers[op.out].width * 4;
  share_rows(index, s_.rows, thread, [&](int32_t row) {
    std::memcpy(rows_of(op.out, row), rows_of(op.x, row) + op.offset, bytes);
  });
}

void Run::row_op(const OpRecord& op, const RowOp& row_op, int32_t index, int thread) {
  share_rows(index, s_.rows, thread, [&](int32_t row) {
    const RopeTable rope = row_op.rope ? rope_of(op, row) : RopeTable{};
    row_op.run(*p_.kernels_->rows, {op, parts_.buffers[op.out].width, rows_of(op.x, row),
                                    row_op.inputs > 1 ? rows_of(op.y, row) : nullptr,
                                    row_op.norm || row_op.factor ? vector(op, 0) : nullptr,
                                    row_op.norm ? vector(op, 1) : nullptr, rope.cos, rope.sin,
                                    rope.half, s_.positions[row], rows_of(op.out, row)});
  });
}

void Run::quantize(const OpRecord& op, int32_t index, int thread) {
  const Acts acts = acts_of(op.out);
  const int64_t width = parts_.buffers[op.x].width;
  share_packed(index, acts, thread, [&](int32_t row0, int32_t row1) {
    p_.kernels_->matmul->quantize_rows(rows_of(op.x, row0), width, &acts, row0, row1, 0, acts.cols);
  });
}

void Run::norm_quantize(const OpRecord& op, int32_t index, int thread) {
  const Acts acts = acts_of(op.out);
  float* normed = reinterpret_cast<float*>(p_.scratch_[thread]);
  share_packed(index, acts, thread, [&](int32_t row0, int32_t row1) {
    for (int32_t row = row0; row < row1; ++row)
      norm(op, rows_of(op.x, row), acts.cols, normed + (int64_t)(row - row0) * acts.cols);
    p_.kernels_->matmul->quantize_rows(normed, acts.cols, &acts, row0, row1, 0, acts.cols);
  });
}

void Run::join(const OpRecord& op, int32_t index, int thread) {
  const int32_t first = parts_.buffers[op.x].width / op.heads,
                second = parts_.buffers[op.y].width / op.heads;
  share_rows(index, s_.rows, thread, [&](int32_t row) {
    const float *x = rows_of(op.x, row), *y = rows_of(op.y, row);
    float* out = rows_of(op.out, row);
    for (int32_t head = 0; head < op.heads; ++head) {
      out = std::copy_n(x + (int64_t)head * first, first, out);
      out = std::copy_n(y + (int64_t)head * second, second, out);
    }
  });
}

void Run::store_kv(const OpRecord& op, int32_t index, int thread) {
  const KVLayout& layout = parts_.groups[op.group].layout;
  share(index, s_.seqs, thread, [&](int32_t seq) {
    for (int32_t row = s_.row_starts[seq]; row < s_.row_starts[seq + 1]; ++row)
      for (int32_t head = 0; head < layout.kv_heads; ++head) {
        const float* k = rows_of(op.x, row) + head * layout.k_dim;
        write_kv(op, seq, row, head, k, op.y < 0 ? k : rows_of(op.y, row) + head * layout.v_dim);
      }
  });
}

// The one place that K and V are stored from, so what write_starts forbids never is.
void Run::write_kv(const OpRecord& op, int32_t seq, int32_t row, int32_t kv_head, const float* k,
                   const float* v) {
  const int32_t position = s_.positions[row], at = group_at(op.group, position);
  if (position < s_.write_starts[seq]) return;
  const LayerGroup& group = parts_.groups[at];
  const int32_t size = group.layout.block_size;
  p_.kernels_->attention->write_kv(&group.layout, group.pages,
                                   block_table(at, seq)[position / size], position % size, op.layer,
                                   kv_head, k, v);
}

// Where K and V of a position are, for an op of a group: sinks in a group of their own.
int32_t Run::group_at(int32_t group, int32_t position) const {
  const LayerGroup& g = parts_.groups[group];
  return position < g.sinks_end() ? g.sinks : group;
}

const int32_t* Run::block_table(int32_t group, int32_t seq) {
  return s_.block_tables + ((int64_t)group * s_.seqs + seq) * s_.max_blocks;
}

}  // namespace octavo
