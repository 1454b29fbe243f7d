// run.h: one step of a program on its way through the threads. See program.h for what it may know.
//
// Made by the caller's thread from the step's shape; then every thread of the pool calls `execute`.
// Ops cut their work into units, of which each thread has a part and takes from the others' when it
// is done; a barrier ends each op.
#pragma once
#include <algorithm>
#include <atomic>
#include <memory>
#include <vector>

#include "kernels/matmul_layout.h"
#include "program/attention_plan.h"
#include "program/expert_rows.h"
#include "program/program.h"
#include "program/row_ops.h"
#include "program/step.h"

namespace octavo {

constexpr int32_t kBlockTiles =
    16;  // act tiles of one unit with a per-thread scratch: up to 96 rows
constexpr int32_t kBlockRows = kBlockTiles * kMaxTile;
constexpr int32_t kLeastBlockTiles = 6;    // that a finer cut leaves in a block
constexpr int64_t kActBytes = 512 << 10;   // of one matmul unit, at most: in half of L2 they stay
constexpr int64_t kUnitBytes = 256 << 10;  // weights of one unit for few rows: one long stream
constexpr int32_t kGateUpPanels = 4;       // 64 columns of gate and of up

static inline int64_t align64(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// The act tiles of a step in `count` blocks: of `size` each but for the last, or with size 0 of
// much the same number.
struct RowBlocks {
  int32_t tiles, count, size;
  int32_t begin(int32_t block) const {
    if (size == 0) return (int32_t)((int64_t)block * tiles / count);
    return block < count ? block * size : tiles;
  }
};

// How panels and rows of a matmul become units: `columns` runs of panels for each block of rows.
struct MatmulCut {
  int32_t panels, columns;
  RowBlocks blocks;
  int32_t units() const { return columns * blocks.count; }
};

struct GateUp {
  const Weight &gate, &up;
  const float *gate_bias = nullptr, *up_bias = nullptr;  // null: none
};

// Matrix `i` of `count` with as many rows each, which are whole panels.
static inline Weight stacked(Weight w, int32_t count, int32_t i) {
  w.rows /= count;
  w.panels /= count;
  w.data += (int64_t)i * w.panels * w.panel_stride;
  return w;
}

// One unit of a cut: panels [panel, end) and tiles [tile0, tile1).
struct MatmulUnit {
  int32_t panel, end, tile0, tile1;
};

class Run {
 public:
  Run(Program& program, ThreadPool& pool, const Step& step);
  void execute(int thread);

 private:
  void run_op(const OpRecord& op, int32_t index, int thread);

  // Calls work(unit) for units [0, count), each on one thread; phase numbers the phases of an op.
  // A thread begins with its own part of them, in order, for what a unit asks of memory ahead is
  // the next one's; then it takes what is left of the others' parts.
  template <class Work>
  void share(int32_t index, int32_t count, int thread, Work work, int phase = 0) {
    for (int turn = 0; turn < p_.threads_; ++turn) {
      const int64_t part = (thread + turn) % p_.threads_;
      const int32_t begin = (int32_t)(part * count / p_.threads_),
                    end = (int32_t)((part + 1) * count / p_.threads_);
      std::atomic<int32_t>& taken = p_.taken_[(kPhases * index + phase) * p_.taken_stride_ + part];
      // Of a part that is done nothing is written: all threads come by all parts, and each write
      // would take the line from the others.
      while (taken.load(std::memory_order_relaxed) < end - begin) {
        const int32_t unit = begin + taken.fetch_add(1, std::memory_order_relaxed);
        if (unit < end) work(unit);
      }
    }
  }

  // Rows are shared out by act tile, so that two threads seldom write into the same line of packed
  // rows: never where they lie in tiles.
  template <class Work>
  void share_rows(int32_t index, int32_t rows, int thread, Work work, int phase = 0) {
    if (rows == 0) return;
    share(index, tile_count(rows), thread, [&](int32_t tile) {
      for (int32_t row = tile_begin(rows, tile); row < tile_begin(rows, tile + 1); ++row) work(row);
    }, phase);
  }

  // Rows [row0, row1) of `acts` that are packed at once: those of a tile, or of a block where they
  // lie in blocks and these are enough for the threads.
  template <class Work>
  void share_packed(int32_t index, const Acts& acts, int thread, Work work) {
    const int32_t rows = acts.rows, blocks = divide_up(rows, kActBlock);
    if (!p_.kernels_->matmul->has_blocks || !lies_in_blocks(acts.kind, rows) ||
        blocks < 2 * p_.threads_)
      return share(index, tile_count(rows), thread,
                   [&](int32_t tile) { work(tile_begin(rows, tile), tile_begin(rows, tile + 1)); });
    share(index, blocks, thread,
          [&](int32_t block) { work(block * kActBlock, std::min((block + 1) * kActBlock, rows)); });
  }

  float* rows_of(int32_t buffer, int32_t row = 0) {
    return reinterpret_cast<float*>(p_.buffer_data_[buffer]) +
           (int64_t)row * parts_.buffers[buffer].width;
  }
  Acts acts_of(int32_t buffer) {
    const BufferSpec& b = parts_.buffers[buffer];
    return {p_.buffer_data_[buffer], b.kind, s_.rows, b.width};
  }
  const float* vector(const OpRecord& op, int i) const {
    return op.vector[i] < 0 ? nullptr : parts_.vectors[op.vector[i]];
  }
  // A row of `columns` through the op's norm.
  void norm(const OpRecord& op, const float* x, int32_t columns, float* out) {
    p_.kernels_->rows->norm(op.norm_kind, x, vector(op, 0), vector(op, 1), op.eps, columns, out);
  }
  const Weight& matrix(const OpRecord& op, int i) const { return parts_.matrices[op.matrix[i]]; }
  // cos and sin of the row's position in the op's table.
  RopeTable rope_of(const OpRecord& op, int32_t row) {
    const RopeTable& table = parts_.rope_tables[op.rope_table];
    const int64_t at = (int64_t)(parts_.rope_by_row ? row : s_.positions[row]) * table.half;
    return {table.cos + at, table.sin + at, table.half};
  }

  // run_rows.cpp
  void embed(const OpRecord& op, int32_t index, int thread);
  void gather(const OpRecord& op, int32_t index, int thread);
  void slice(const OpRecord& op, int32_t index, int thread);
  void row_op(const OpRecord& op, const RowOp& row_op, int32_t index, int thread);
  void quantize(const OpRecord& op, int32_t index, int thread);
  void norm_quantize(const OpRecord& op, int32_t index, int thread);
  void store_kv(const OpRecord& op, int32_t index, int thread);
  void join(const OpRecord& op, int32_t index, int thread);
  void write_kv(const OpRecord& op, int32_t seq, int32_t row, int32_t kv_head, const float* k,
                const float* v);
  const int32_t* block_table(int32_t group, int32_t seq);
  int32_t group_at(int32_t group, int32_t position) const;

  // run_matmul.cpp
  bool rows_in_tiles() const { return !p_.kernels_->matmul->has_blocks; }
  RowBlocks row_blocks(int32_t rows, int32_t most_tiles) const;
  int32_t unit_panels(const Weight& w, int32_t rows) const;
  MatmulCut matmul_cut(const Weight& w, const Acts& acts) const;
  MatmulCut gate_up_cut(const Weight& gate, int32_t rows) const;
  static MatmulUnit unit_of(const MatmulCut& cut, const Weight& w, int32_t unit);
  void gate_up_unit(const GateUp& of, const Acts& gate_in, const Acts& up_in, const Acts& out,
                    int32_t activation, const MatmulUnit& u, int thread);
  void matmul(const OpRecord& op, int32_t index, int thread);
  void qkv(const OpRecord& op, int32_t index, int thread);
  void project(const OpRecord& op, int which, int32_t head, int32_t dim, int32_t tile0,
               int32_t tile1, float* out, int64_t stride);
  void norm_and_rotate(const OpRecord& op, int which, int32_t row, float* head);
  int32_t sequence_of(int32_t row) const;
  void prefetch_kv(const OpRecord& op, int32_t head, int32_t row0, int32_t row1);
  void q_head(const OpRecord& op, int32_t head, int32_t tile0, int32_t tile1);
  void kv_head(const OpRecord& op, int32_t head, int32_t tile0, int32_t tile1, int thread);
  void gate_up(const OpRecord& op, int32_t index, int thread);
  void head_linear(const OpRecord& op, int32_t index, int thread);

  // run_experts.cpp
  void route(const OpRecord& op, int32_t index, int thread);
  void experts(const OpRecord& op, int32_t index, int thread);
  void order_by_expert(const OpRecord& op);
  Weight expert_matrix(const OpRecord& op, int i, int32_t expert) const;
  const float* expert_bias(const OpRecord& op, int i, int32_t expert) const;
  Acts expert_acts(const OpRecord& op, int i, int32_t expert) const;
  void pack_pair(const OpRecord& op, int32_t pair);
  void sum_experts(const OpRecord& op, int32_t row, int thread);

  // run_attention.cpp
  AttentionArgs attention_args(const OpRecord& op, int32_t seq);
  AttentionArgs unit_args(const OpRecord& op, const AttentionUnit& u);
  AttentionArgs shared_args(const OpRecord& op, const SharedUnit& u);
  void plan_attention();
  void attend(const OpRecord& op, int32_t index, int thread);
  void attend_shared(const OpRecord& op, int32_t index, int thread);
  template <class Compute>
  void attend_to(const OpRecord& op, const AttentionRows& rows, int thread, Compute compute);
  KVPlace kv_place(const OpRecord& op, const AttentionUnit& u);

  // run_head.cpp
  void plan_head();
  bool edited(int32_t output) const;
  TileSummary* summaries(int32_t row, bool after_edits);
  const float* head_row(const OpRecord& op, int32_t output, float* scratch);
  void head(const OpRecord& op, int32_t index, int thread);
  void vocab_tile(const OpRecord& op, const Weight& w, const Acts& acts, int32_t v, int32_t tile0,
                  int32_t tile1, float* logits);
  void note_unedited(int32_t output, const float* x, int32_t base, int32_t n);
  void merge(int32_t row, int thread);
  void draw(int32_t row, int32_t likeliest, int32_t* weights);
  float* drawn_row(int32_t row) { return p_.drawn_rows_.data() + places_[row] * drawn_stride_; }

  Program& p_;
  const ProgramParts& parts_;
  ThreadPool& pool_;
  const Step& s_;
  ExpertRows expert_rows_;                // of the op that runs
  std::vector<AttentionPlan> attention_;  // by layer group
  // By layer group: chunks of each of the plan's splits that are done. They count on through
  // layers.
  std::vector<std::unique_ptr<std::atomic<int32_t>[]>> arrivals_;
  int32_t vocab_tiles_ = 0, token_tiles_ = 0;  // of all rows of the table; that hold tokens
  std::vector<int32_t> hidden_, scored_;       // outputs that stop before the vocabulary; the rest
  std::vector<TileSummary> summaries_;         // [before, after edits][scored][vocabulary tile]
  std::vector<int32_t> top_ids_;
  std::vector<float> top_values_;
  std::vector<uint8_t> head_acts_;
  std::vector<int64_t> places_;  // of each scored output, among those that want the same
  int64_t drawn_stride_ = 0;
  std::vector<float> unedited_;  // the logit of each edit's token before it, where one is drawn
};

}  // namespace octavo
