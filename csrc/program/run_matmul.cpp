// run_matmul.cpp: ops around a matmul: how its panels and rows become units, and what each unit
// does with its result.
#include <algorithm>

#include "cpu_features.h"
#include "program/run.h"

namespace octavo {

// Blocks of at most so many tiles: as many for each thread, where none gets small, so that a thread
// begins in each op with the rows that it wrote in the one before, which are still in its cache.
// Where rows do not lie in tiles (AMX), whole blocks waste the least of what rows do lie in.
RowBlocks Run::row_blocks(int32_t rows, int32_t most_tiles) const {
  const int32_t tiles = tile_count(rows), least = divide_up(tiles, most_tiles);
  if (!rows_in_tiles()) return {tiles, least, most_tiles};
  const int32_t even = divide_up(least, p_.threads_) * p_.threads_;
  return {tiles, least > 1 && tiles / even >= kLeastBlockTiles ? even : least, 0};
}

// Panels of one unit. Many rows keep a pair of panels in L1 while the tiles pass by. Few rows are
// bound by reading weights: a unit is one stream of about kUnitBytes, in as many rounds as leave no
// thread with more panels than another.
int32_t Run::unit_panels(const Weight& w, int32_t rows) const {
  if (rows > 2 * kMaxTile) return 2;
  int32_t best = w.panels;
  const int32_t rounds =
      (int32_t)std::max<int64_t>(1, w.panel_stride * w.panels / (kUnitBytes * p_.threads_));
  for (int32_t r = 1, least = INT32_MAX; r <= rounds; ++r) {
    const int32_t panels = divide_up(w.panels, r * p_.threads_);
    if (r * panels > least) continue;
    least = r * panels;
    best = panels;
  }
  return best;
}

MatmulCut Run::matmul_cut(const Weight& w, const Acts& acts) const {
  const int32_t panels = unit_panels(w, acts.rows);
  const int64_t most = std::min(kActBytes, l2_bytes() / 2),
                in_cache = most / act_row_bytes(acts.kind, acts.cols) / kMaxTile;
  return {panels, divide_up(w.panels, panels),
          row_blocks(acts.rows, (int32_t)std::clamp<int64_t>(
                                    in_cache, 1, rows_in_tiles() ? kBlockTiles : INT32_MAX))};
}

MatmulUnit Run::unit_of(const MatmulCut& cut, const Weight& w, int32_t unit) {
  const int32_t panel = unit % cut.columns * cut.panels, block = unit / cut.columns;
  return {panel, std::min(panel + cut.panels, w.panels), cut.blocks.begin(block),
          cut.blocks.begin(block + 1)};
}

void Run::matmul(const OpRecord& op, int32_t index, int thread) {
  const Weight& w = matrix(op, 0);
  const Acts acts = acts_of(op.x);
  const MatmulCut cut = matmul_cut(w, acts);
  const int64_t width = w.rows;
  share(index, cut.units(), thread, [&](int32_t unit) {
    const MatmulUnit u = unit_of(cut, w, unit);
    const Epilogue epilogue{vector(op, 0), op.scale,
                            op.add < 0 ? nullptr : rows_of(op.add) + u.panel * 16, width};
    p_.kernels_->matmul->matmul(&w, u.panel, u.end, &acts, u.tile0, u.tile1, epilogue,
                                rows_of(op.out) + u.panel * 16, width);
  });
}

// Units of (head, block of rows): q heads go to the q buffer, a kv head's K and V through scratch
// into the pages.
void Run::qkv(const OpRecord& op, int32_t index, int thread) {
  const KVLayout& layout = parts_.groups[op.group].layout;
  const int32_t heads = op.heads + layout.kv_heads;
  const RowBlocks blocks = row_blocks(s_.rows, kBlockTiles);
  share(index, heads * blocks.count, thread, [&](int32_t unit) {
    const int32_t tile0 = blocks.begin(unit / heads), tile1 = blocks.begin(unit / heads + 1);
    const int32_t head = unit % heads;  // kv heads first: they are the larger units
    if (head < layout.kv_heads) kv_head(op, head, tile0, tile1, thread);
    else q_head(op, head - layout.kv_heads, tile0, tile1);
  });
}

void Run::project(const OpRecord& op, int which, int32_t head, int32_t dim, int32_t tile0,
                  int32_t tile1, float* out, int64_t stride) {
  const Acts acts = acts_of(op.x);
  p_.kernels_->matmul->matmul(&matrix(op, which), head * dim / 16, (head + 1) * dim / 16, &acts,
                              tile0, tile1, {.bias = vector(op, which)}, out, stride);
}

// One head of a row's q (which = 0) or k (1).
void Run::norm_and_rotate(const OpRecord& op, int which, int32_t row, float* head) {
  const RowKernels& k = *p_.kernels_->rows;
  if (const float* norm = vector(op, 3 + which))
    k.norm(kRmsNorm, head, norm, nullptr, op.eps, op.head_dim, head);
  if (op.rope_table < 0) return;
  const RopeTable rope = rope_of(op, row);
  k.rope(head, 1, op.head_dim, 2 * rope.half, rope.cos, rope.sin, op.rope_style);
}

void Run::q_head(const OpRecord& op, int32_t head, int32_t tile0, int32_t tile1) {
  const int64_t width = parts_.buffers[op.out].width;
  project(op, 0, head, op.head_dim, tile0, tile1, rows_of(op.out) + head * op.head_dim, width);
  for (int32_t row = tile_begin(s_.rows, tile0); row < tile_begin(s_.rows, tile1); ++row)
    norm_and_rotate(op, 0, row, rows_of(op.out, row) + head * op.head_dim);
}

int32_t Run::sequence_of(int32_t row) const {
  const int32_t* ends = s_.row_starts + 1;
  return (int32_t)(std::upper_bound(ends, ends + s_.seqs, row) - ends);
}

// What rows write lies in one line after the other of units that come from memory: asked for
// before the product, they are there after it.
void Run::prefetch_kv(const OpRecord& op, int32_t head, int32_t row0, int32_t row1) {
  for (int32_t row = row0, seq = sequence_of(row0); row < row1; ++row) {
    while (row >= s_.row_starts[seq + 1]) ++seq;
    const int32_t position = s_.positions[row], at_group = group_at(op.group, position);
    const LayerGroup& group = parts_.groups[at_group];
    const KVLayout& layout = group.layout;
    const int32_t slot = position % layout.block_size;
    if (row > row0 && row > s_.row_starts[seq] && slot % kKVUnit != 0) continue;  // the same unit
    const KVUnit unit = kv_unit(&layout, block_table(at_group, seq)[position / layout.block_size],
                                op.layer, head, slot);
    for (int64_t at = 0; at < layout.k_unit_stride; at += 64)
      __builtin_prefetch(group.pages + unit.k + at, 1);
    for (int64_t at = 0; at < layout.v_unit_stride; at += 64)
      __builtin_prefetch(group.pages + unit.v + at, 1);
  }
}

void Run::kv_head(const OpRecord& op, int32_t head, int32_t tile0, int32_t tile1, int thread) {
  const KVLayout& layout = parts_.groups[op.group].layout;
  const int32_t row0 = tile_begin(s_.rows, tile0), row1 = tile_begin(s_.rows, tile1);
  float* k = reinterpret_cast<float*>(p_.scratch_[thread]);
  float* v = k + (int64_t)kBlockRows * layout.k_dim;
  prefetch_kv(op, head, row0, row1);
  project(op, 1, head, layout.k_dim, tile0, tile1, k - (int64_t)row0 * layout.k_dim, layout.k_dim);
  project(op, 2, head, layout.v_dim, tile0, tile1, v - (int64_t)row0 * layout.v_dim, layout.v_dim);
  int32_t seq = sequence_of(row0);
  for (int32_t row = row0; row < row1; ++row) {
    while (row >= s_.row_starts[seq + 1]) ++seq;
    float* key = k + (int64_t)(row - row0) * layout.k_dim;
    norm_and_rotate(op, 1, row, key);
    write_kv(op, seq, row, head, key, v + (int64_t)(row - row0) * layout.v_dim);
  }
}

// Whole groups of 32 columns; few rows leave room for a longer stream in the same scratch.
MatmulCut Run::gate_up_cut(const Weight& gate, int32_t rows) const {
  const int32_t panels =
      rows > kMaxTile ? kGateUpPanels : std::min(divide_up(unit_panels(gate, rows), 2) * 2, 64);
  return {panels, divide_up(gate.panels, panels), row_blocks(rows, kBlockTiles)};
}

void Run::gate_up(const OpRecord& op, int32_t index, int thread) {
  const Weight &gate = matrix(op, 0), &up = matrix(op, 1);
  const Acts in = acts_of(op.x), out = acts_of(op.out);
  const MatmulCut cut = gate_up_cut(gate, s_.rows);
  share(index, cut.units(), thread, [&](int32_t unit) {
    gate_up_unit({gate, up}, in, in, out, op.activation, unit_of(cut, gate, unit), thread);
  });
}

void Run::gate_up_unit(const GateUp& of, const Acts& gate_in, const Acts& up_in, const Acts& out,
                       int32_t activation, const MatmulUnit& u, int thread) {
  const auto gated = p_.kernels_->matmul->gated;
  const bool biased = of.gate_bias != nullptr || of.up_bias != nullptr;
  if (gated != nullptr && !biased && gate_in.data == up_in.data &&
      gated(&of.gate, &of.up, u.panel, u.end, &gate_in, u.tile0, u.tile1, activation, &out))
    return;
  const int32_t row0 = tile_begin(out.rows, u.tile0), row1 = tile_begin(out.rows, u.tile1);
  const int32_t width = (u.end - u.panel) * 16, k0 = u.panel * 16,
                k1 = std::min(u.end * 16, out.cols);
  const int64_t shift = (int64_t)row0 * width;
  float* gate = reinterpret_cast<float*>(p_.scratch_[thread]);
  float* up = gate + (int64_t)kBlockRows * kGateUpPanels * 16;
  const auto run = p_.kernels_->matmul->matmul;
  run(&of.gate, u.panel, u.end, &gate_in, u.tile0, u.tile1, {of.gate_bias}, gate - shift, width);
  run(&of.up, u.panel, u.end, &up_in, u.tile0, u.tile1, {of.up_bias}, up - shift, width);
  for (int32_t row = row0; row < row1; ++row) {
    float* g = gate + (int64_t)(row - row0) * width;
    p_.kernels_->rows->gate_mul(g, up + (int64_t)(row - row0) * width, activation, k1 - k0, g);
  }
  p_.kernels_->matmul->quantize_rows(gate, width, &out, row0, row1, k0, k1);
}

// Units of (head, block of rows): a head's columns are packed in scratch for its own matrix.
void Run::head_linear(const OpRecord& op, int32_t index, int thread) {
  const RowBlocks blocks = row_blocks(s_.rows, kBlockTiles);
  const int64_t in = parts_.buffers[op.x].width, out = parts_.buffers[op.out].width;
  share(index, op.heads * blocks.count, thread, [&](int32_t unit) {
    const int32_t head = unit % op.heads, block = unit / op.heads;
    const int32_t row0 = tile_begin(s_.rows, blocks.begin(block)),
                  row1 = tile_begin(s_.rows, blocks.begin(block + 1));
    const Weight w = stacked(matrix(op, 0), op.heads, head);
    const Acts acts{p_.scratch_[thread], op.row_kind[0], row1 - row0, w.cols};
    const MatmulKernels& k = *p_.kernels_->matmul;
    k.quantize_rows(rows_of(op.x, row0) + head * w.cols, in, &acts, 0, acts.rows, 0, w.cols);
    k.matmul(&w, 0, w.panels, &acts, 0, tile_count(acts.rows), {},
             rows_of(op.out, row0) + head * w.rows, out);
  });
}

}  // namespace octavo
