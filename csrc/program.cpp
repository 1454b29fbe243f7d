#include "program.h"
#include "matmul_layout.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <new>
#include <stdexcept>

namespace octavo {
namespace {

constexpr int32_t kBlockTiles = 16;                     // act tiles of one unit with a per-thread scratch: up to 96 rows
constexpr int32_t kBlockRows = kBlockTiles * kMaxTile;
constexpr int64_t kActBytes = 512 << 10;                // activations of one matmul unit stay in L2
constexpr int64_t kUnitBytes = 32 << 10;                // weights of one GEMV unit: about 2 us of reading
constexpr int32_t kGateUpPanels = 4;                    // 64 columns of gate and of up
constexpr int32_t kUnitAttentionRows = 2 * kAttentionGroupRows;  // (token, head) rows of one unit of attention
constexpr int32_t kVocabPanels = kVocabTile / 16;

int64_t align64(int64_t bytes) { return (bytes + 63) / 64 * 64; }
int32_t divide_up(int32_t a, int32_t b) { return (a + b - 1) / b; }
int32_t panels_of(int32_t columns) { return divide_up(columns, 16); }

int64_t row_bytes(const BufferSpec& b) {
  return b.kind < 0 ? (int64_t)b.width * 4 : act_row_bytes(b.kind, b.width);
}

}  // namespace

// One unit of attention: rows [row0, row1) of a sequence (counted from its first row) and one kv head; all chunks, or
// one of `chunks` whose partial states are merged by whichever thread finishes last.
struct AttentionUnit {
  int32_t seq, kv_head, row0, row1;
  int32_t chunk, chunks;  // chunks == 0: not split
  int32_t arrival;        // index of the arrival counter of a split unit
  int64_t partial;        // float offset of this chunk's partial; of the first chunk for the merge: partial_base
  int64_t partial_base;
  int64_t cost;
};

// The run of one step: the program, the step, and what the step's shape decides before any thread starts.
class Run {
 public:
  Run(Program& program, ThreadPool& pool, const Step& step) : p_(program), pool_(pool), s_(step) {
    units_.resize(p_.groups_.size());
    for (size_t g = 0; g < p_.groups_.size(); ++g) plan_attention((int32_t)g);
    arrivals_ = std::make_unique<std::atomic<int32_t>[]>(num_arrivals_);
    partials_.resize(num_partials_);
    for (size_t i = 0; i < 3 * p_.ops_.size(); ++i) p_.counters_[i].next.store(0, std::memory_order_relaxed);
    if (step.outputs > 0) plan_head();
  }

  void execute(int thread) {
    using Clock = std::chrono::steady_clock;
    Clock::time_point begin = Clock::now();
    for (size_t i = 0; i < p_.ops_.size(); ++i) {
      run_op(p_.ops_[i], (int32_t)i, thread);
      if (s_.op_ns != nullptr && thread == 0) {
        const Clock::time_point end = Clock::now();
        s_.op_ns[i] = (uint64_t)std::chrono::duration_cast<std::chrono::nanoseconds>(end - begin).count();
        begin = end;
      }
    }
  }

 private:

  void run_op(const OpRecord& op, int32_t index, int thread) {
    switch (op.code) {
      case kEmbed: embed(op, index); break;
      case kRmsNorm: rms_norm(op, index); break;
      case kQuantize: quantize(op, index); break;
      case kNormQuantize: norm_quantize(op, index, thread); break;
      case kMatmul: matmul(op, index); break;
      case kRope: rope(op, index); break;
      case kStoreKV: store_kv(op, index); break;
      case kAttend:
      case kAttendQuantize: attend(op, index, thread); break;
      case kSwiGLU: swiglu(op, index); break;
      case kGateUp: gate_up(op, index, thread); break;
      case kQKV: qkv(op, index, thread); break;
      case kHead: head(op, index, thread); break;
    }
    pool_.barrier();
  }

  // ---- units ------------------------------------------------------------------------------------------------------

  // Calls work(unit) for units [0, count), each on one thread; phase numbers the phases of an op.
  template <class Work>
  void share(int32_t index, int32_t count, Work work, int phase = 0) {
    std::atomic<int32_t>& next = p_.counters_[3 * index + phase].next;
    for (int32_t unit = next.fetch_add(1, std::memory_order_relaxed); unit < count;
         unit = next.fetch_add(1, std::memory_order_relaxed))
      work(unit);
  }

  // Rows are shared out by act tile, so that two threads never write into the same tile of packed rows.
  template <class Work>
  void share_rows(int32_t index, int32_t rows, Work work, int phase = 0) {
    if (rows == 0) return;
    share(index, tile_count(rows), [&](int32_t tile) {
      for (int32_t row = tile_begin(rows, tile); row < tile_begin(rows, tile + 1); ++row) work(row);
    }, phase);
  }

  float* rows_of(int32_t buffer, int32_t row = 0) {
    return reinterpret_cast<float*>(p_.buffer_data_[buffer]) + (int64_t)row * p_.buffers_[buffer].width;
  }
  Acts acts_of(int32_t buffer) {
    const BufferSpec& b = p_.buffers_[buffer];
    return {p_.buffer_data_[buffer], b.kind, s_.rows, b.width};
  }
  const float* vector(const OpRecord& op, int i) { return op.vector[i] < 0 ? nullptr : p_.vectors_[op.vector[i]]; }
  const Weight& matrix(const OpRecord& op, int i) { return p_.matrices_[op.matrix[i]]; }
  const float* cos_of(int32_t row, int32_t half) { return p_.rope_cos_ + (int64_t)s_.positions[row] * half; }
  const float* sin_of(int32_t row, int32_t half) { return p_.rope_sin_ + (int64_t)s_.positions[row] * half; }

  // ---- row ops ------------------------------------------------------------------------------------------------------

  void embed(const OpRecord& op, int32_t index) {
    share_rows(index, s_.rows, [&](int32_t row) {
      p_.kernels_->matmul->expand_row(&matrix(op, 0), s_.tokens[row], rows_of(op.out, row));
    });
  }

  void rms_norm(const OpRecord& op, int32_t index) {
    const int32_t width = p_.buffers_[op.x].width;
    share_rows(index, s_.rows, [&](int32_t row) {
      p_.kernels_->rows->rms_norm(rows_of(op.x, row), vector(op, 0), op.eps, width, rows_of(op.out, row));
    });
  }

  void quantize(const OpRecord& op, int32_t index) {
    const Acts acts = acts_of(op.out);
    share_rows(index, s_.rows, [&](int32_t row) {
      p_.kernels_->matmul->quantize(rows_of(op.x, row), &acts, row, 0, acts.cols);
    });
  }

  void norm_quantize(const OpRecord& op, int32_t index, int thread) {
    const Acts acts = acts_of(op.out);
    float* normed = reinterpret_cast<float*>(p_.scratch_[thread]);
    share_rows(index, s_.rows, [&](int32_t row) {
      p_.kernels_->rows->rms_norm(rows_of(op.x, row), vector(op, 0), op.eps, acts.cols, normed);
      p_.kernels_->matmul->quantize(normed, &acts, row, 0, acts.cols);
    });
  }

  void swiglu(const OpRecord& op, int32_t index) {
    const int32_t width = p_.buffers_[op.out].width;
    share_rows(index, s_.rows, [&](int32_t row) {
      p_.kernels_->rows->silu_mul(rows_of(op.x, row), rows_of(op.y, row), width, rows_of(op.out, row));
    });
  }

  void rope(const OpRecord& op, int32_t index) {
    const int32_t width = p_.buffers_[op.out].width, half = op.rotary_dim / 2;
    share_rows(index, s_.rows, [&](int32_t row) {
      float* x = rows_of(op.out, row);
      if (op.out != op.x) std::memcpy(x, rows_of(op.x, row), (size_t)width * 4);
      p_.kernels_->rows->rope(x, op.heads, op.head_dim, op.rotary_dim, cos_of(row, half), sin_of(row, half), op.rope_style);
    });
  }

  void store_kv(const OpRecord& op, int32_t index) {
    const KVLayout& layout = p_.groups_[op.group].layout;
    share(index, s_.seqs, [&](int32_t seq) {
      for (int32_t row = s_.row_starts[seq]; row < s_.row_starts[seq + 1]; ++row)
        for (int32_t head = 0; head < layout.kv_heads; ++head)
          write_kv(op, seq, row, head, rows_of(op.x, row) + head * layout.k_dim,
                   rows_of(op.y, row) + head * layout.v_dim);
    });
  }

  void write_kv(const OpRecord& op, int32_t seq, int32_t row, int32_t kv_head, const float* k, const float* v) {
    const LayerGroup& group = p_.groups_[op.group];
    const int32_t position = s_.positions[row], size = group.layout.block_size;
    p_.kernels_->attention->write_kv(&group.layout, group.pages, block_table(op.group, seq)[position / size],
                                     position % size, op.layer, kv_head, k, v);
  }

  const int32_t* block_table(int32_t group, int32_t seq) {
    return s_.block_tables + ((int64_t)group * s_.seqs + seq) * s_.max_blocks;
  }

  // ---- matmuls --------------------------------------------------------------------------------------------------------

  // Panels of one unit: few rows are bound by reading weights, so units are about kUnitBytes and their number divides
  // evenly over the threads; many rows keep a pair of panels in L1 while the tiles pass by.
  int32_t unit_panels(const Weight& w, int32_t rows) {
    if (rows > 2 * kMaxTile) return 2;
    const int64_t bytes = w.panel_stride * w.panels;
    const int32_t rounds = (int32_t)std::max<int64_t>(1, bytes / (kUnitBytes * p_.threads_));
    return std::max(1, divide_up(w.panels, rounds * p_.threads_));
  }

  void matmul(const OpRecord& op, int32_t index) {
    const Weight& w = matrix(op, 0);
    const Acts acts = acts_of(op.x);
    const int32_t panels = unit_panels(w, s_.rows), columns = divide_up(w.panels, panels);
    const int32_t tiles = tile_count(s_.rows);
    const int32_t step = (int32_t)std::max<int64_t>(1, kActBytes / act_row_bytes(acts.kind, acts.cols) / kMaxTile);
    const int64_t width = w.rows;
    share(index, columns * divide_up(tiles, step), [&](int32_t unit) {
      const int32_t panel = unit % columns * panels, tile = unit / columns * step;
      const float* add = op.add < 0 ? nullptr : rows_of(op.add) + panel * 16;
      p_.kernels_->matmul->matmul(&w, panel, std::min(panel + panels, w.panels), &acts, tile,
                                  std::min(tile + step, tiles), vector(op, 0), add, width,
                                  rows_of(op.out) + panel * 16, width);
    });
  }

  // Units of (head, block of rows): q heads go to the q buffer, a kv head's K and V through scratch into the pages.
  void qkv(const OpRecord& op, int32_t index, int thread) {
    const KVLayout& layout = p_.groups_[op.group].layout;
    const int32_t heads = op.heads + layout.kv_heads;
    const int32_t tiles = tile_count(s_.rows);
    share(index, heads * divide_up(tiles, kBlockTiles), [&](int32_t unit) {
      const int32_t tile0 = unit / heads * kBlockTiles, tile1 = std::min(tile0 + kBlockTiles, tiles);
      const int32_t head = unit % heads;  // kv heads first: they are the larger units
      if (head < layout.kv_heads)
        kv_head(op, head, tile0, tile1, thread);
      else
        q_head(op, head - layout.kv_heads, tile0, tile1);
    });
  }

  void project(const OpRecord& op, int which, int32_t head, int32_t dim, int32_t tile0, int32_t tile1, float* out,
               int64_t stride) {
    const Acts acts = acts_of(op.x);
    p_.kernels_->matmul->matmul(&matrix(op, which), head * dim / 16, (head + 1) * dim / 16, &acts, tile0, tile1,
                                vector(op, which), nullptr, 0, out, stride);
  }

  void rotate(const OpRecord& op, int32_t row, float* x) {
    const int32_t half = op.rotary_dim / 2;
    p_.kernels_->rows->rope(x, 1, op.head_dim, op.rotary_dim, cos_of(row, half), sin_of(row, half), op.rope_style);
  }

  void q_head(const OpRecord& op, int32_t head, int32_t tile0, int32_t tile1) {
    const int64_t width = p_.buffers_[op.out].width;
    project(op, 0, head, op.head_dim, tile0, tile1, rows_of(op.out) + head * op.head_dim, width);
    for (int32_t row = tile_begin(s_.rows, tile0); row < tile_begin(s_.rows, tile1); ++row)
      rotate(op, row, rows_of(op.out, row) + head * op.head_dim);
  }

  void kv_head(const OpRecord& op, int32_t head, int32_t tile0, int32_t tile1, int thread) {
    const KVLayout& layout = p_.groups_[op.group].layout;
    const int32_t row0 = tile_begin(s_.rows, tile0), row1 = tile_begin(s_.rows, tile1);
    float* k = reinterpret_cast<float*>(p_.scratch_[thread]);
    float* v = k + (int64_t)kBlockRows * layout.k_dim;
    project(op, 1, head, layout.k_dim, tile0, tile1, k - (int64_t)row0 * layout.k_dim, layout.k_dim);
    project(op, 2, head, layout.v_dim, tile0, tile1, v - (int64_t)row0 * layout.v_dim, layout.v_dim);
    int32_t seq = (int32_t)(std::upper_bound(s_.row_starts, s_.row_starts + s_.seqs + 1, row0) - s_.row_starts) - 1;
    for (int32_t row = row0; row < row1; ++row) {
      while (row >= s_.row_starts[seq + 1]) ++seq;
      float* key = k + (int64_t)(row - row0) * layout.k_dim;
      rotate(op, row, key);
      write_kv(op, seq, row, head, key, v + (int64_t)(row - row0) * layout.v_dim);
    }
  }

  void gate_up(const OpRecord& op, int32_t index, int thread) {
    const Weight &gate_w = matrix(op, 0), &up_w = matrix(op, 1);
    const Acts in = acts_of(op.x), out = acts_of(op.out);
    const int32_t columns = divide_up(gate_w.panels, kGateUpPanels), tiles = tile_count(s_.rows);
    const int32_t width = kGateUpPanels * 16;
    float* gate = reinterpret_cast<float*>(p_.scratch_[thread]);
    float* up = gate + (int64_t)kBlockRows * width;
    share(index, columns * divide_up(tiles, kBlockTiles), [&](int32_t unit) {
      const int32_t panel = unit % columns * kGateUpPanels, end = std::min(panel + kGateUpPanels, gate_w.panels);
      const int32_t tile0 = unit / columns * kBlockTiles, tile1 = std::min(tile0 + kBlockTiles, tiles);
      const int32_t row0 = tile_begin(s_.rows, tile0), row1 = tile_begin(s_.rows, tile1);
      const int64_t shift = (int64_t)row0 * width;
      const auto run = p_.kernels_->matmul->matmul;
      run(&gate_w, panel, end, &in, tile0, tile1, nullptr, nullptr, 0, gate - shift, width);
      run(&up_w, panel, end, &in, tile0, tile1, nullptr, nullptr, 0, up - shift, width);
      const int32_t k0 = panel * 16, k1 = std::min(end * 16, out.cols);
      for (int32_t row = row0; row < row1; ++row) {
        float* g = gate + (int64_t)(row - row0) * width;
        p_.kernels_->rows->silu_mul(g, up + (int64_t)(row - row0) * width, k1 - k0, g);
        p_.kernels_->matmul->quantize(g, &out, row, k0, k1);
      }
    });
  }

  // ---- attention ------------------------------------------------------------------------------------------------------

  AttentionArgs attention_args(const OpRecord& op, int32_t seq) {
    const LayerGroup& group = p_.groups_[op.group];
    const int32_t row = s_.row_starts[seq];
    AttentionArgs a{};
    a.layout = &group.layout;
    a.pages = group.pages;
    a.block_table = block_table(op.group, seq);
    a.q = rows_of(op.x, row);
    a.q_stride = p_.buffers_[op.x].width;
    a.out_stride = (int64_t)op.heads * group.layout.v_dim;
    a.layer = op.layer;
    a.group = op.heads / group.layout.kv_heads;
    a.first_position = s_.positions[row];
    a.rows = s_.row_starts[seq + 1] - row;
    a.window = group.window;
    a.scale = op.scale;
    return a;
  }

  // The units of a layer group, the same for each of its layers. Few short rows are cut into chunks, so that one long
  // sequence keeps every thread busy; bits do not depend on it.
  void plan_attention(int32_t group) {
    const OpRecord* op = nullptr;
    for (const OpRecord& o : p_.ops_)
      if ((o.code == kAttend || o.code == kAttendQuantize) && o.group == group) op = &o;
    if (op == nullptr) return;
    const int32_t kv_heads = p_.groups_[group].layout.kv_heads, share = op->heads / kv_heads;
    const int32_t unit_rows = std::max(1, kUnitAttentionRows / share);
    const bool few = s_.seqs * kv_heads < 8 * p_.threads_;
    for (int32_t seq = 0; seq < s_.seqs; ++seq) {
      const AttentionArgs a = attention_args(*op, seq);
      for (int32_t row0 = 0; row0 < a.rows; row0 += unit_rows) {
        const int32_t row1 = std::min(row0 + unit_rows, a.rows);
        const int32_t first = attention_first_chunk(&a, row0), end = attention_end_chunk(&a, row1);
        const bool split = few && a.rows <= 8 && end - first > 1;
        for (int32_t head = 0; head < kv_heads; ++head) {
          AttentionUnit unit{seq, head, row0, row1, first, 0, 0, 0, 0, (int64_t)(row1 - row0) * (end - first)};
          if (!split) {
            units_[group].push_back(unit);
            continue;
          }
          unit.chunks = end - first;
          unit.cost = row1 - row0;
          unit.arrival = num_arrivals_++;
          unit.partial_base = num_partials_;
          for (int32_t c = 0; c < unit.chunks; ++c) {
            unit.chunk = first + c;
            unit.partial = num_partials_;
            units_[group].push_back(unit);
            num_partials_ += attention_partial_floats(&a, row0, row1);
          }
        }
      }
    }
    std::stable_sort(units_[group].begin(), units_[group].end(),
                     [](const AttentionUnit& x, const AttentionUnit& y) { return x.cost > y.cost; });
  }

  void attend(const OpRecord& op, int32_t index, int thread) {
    const std::vector<AttentionUnit>& units = units_[op.group];
    const KVLayout& layout = p_.groups_[op.group].layout;
    const int64_t scratch_floats = align64(attention_scratch_bytes(&layout)) / 4;
    float* staged = reinterpret_cast<float*>(p_.scratch_[thread]) + scratch_floats;
    share(index, (int32_t)units.size(), [&](int32_t i) {
      const AttentionUnit& u = units[i];
      AttentionArgs a = attention_args(op, u.seq);
      float* out;
      if (op.code == kAttend) {
        out = rows_of(op.out, s_.row_starts[u.seq]);
      } else {  // the head's columns of these rows only, on their way to the packed rows
        a.out_stride = (int64_t)a.group * layout.v_dim;
        out = staged - u.row0 * a.out_stride - (int64_t)u.kv_head * a.out_stride;
      }
      if (!attend_unit(u, a, out, thread)) return;
      if (op.code == kAttendQuantize) {
        const Acts acts = acts_of(op.out);
        const int32_t k0 = (int32_t)a.out_stride * u.kv_head;
        for (int32_t row = u.row0; row < u.row1; ++row)
          p_.kernels_->matmul->quantize(staged + (row - u.row0) * a.out_stride, &acts, s_.row_starts[u.seq] + row, k0,
                                        k0 + (int32_t)a.out_stride);
      }
    });
  }

  // True once `out` holds the unit's rows: for a chunk, on the thread that finished the last of them.
  bool attend_unit(const AttentionUnit& u, const AttentionArgs& a, float* out, int thread) {
    const AttentionKernels& k = *p_.kernels_->attention;
    if (u.chunks == 0) {
      k.attend_rows(&a, u.row0, u.row1, u.kv_head, out, p_.scratch_[thread]);
      return true;
    }
    k.attend_chunk(&a, u.row0, u.row1, u.kv_head, u.chunk, partials_.data() + u.partial, p_.scratch_[thread]);
    // The counter runs on through the layers: every `chunks`-th arrival ends one.
    if ((arrivals_[u.arrival].fetch_add(1, std::memory_order_acq_rel) + 1) % u.chunks != 0) return false;
    k.merge_chunks(&a, u.row0, u.row1, u.kv_head, partials_.data() + u.partial_base, out);
    return true;
  }

  // ---- head -------------------------------------------------------------------------------------------------------------

  void plan_head() {
    const Weight& w = p_.matrices_[p_.ops_.back().matrix[0]];
    vocab_tiles_ = divide_up(w.panels, kVocabPanels);
    summaries_.resize((size_t)2 * s_.outputs * vocab_tiles_);
    if (s_.top_k > 0) {
      top_ids_.resize((size_t)s_.outputs * vocab_tiles_ * s_.top_k);
      top_values_.resize(top_ids_.size());
    }
    head_acts_.resize(act_row_bytes(act_kind_of(w.format), w.cols) * s_.outputs + 64);
    for (int32_t i = 0, logits = 0, hidden = 0; i < s_.outputs; ++i)
      result_rows_.push_back(s_.wants[i] == kLogits ? logits++ : s_.wants[i] == kHidden ? hidden++ : 0);
  }

  bool edited(int32_t output) const {
    return s_.masks != nullptr || (s_.edit_starts != nullptr && s_.edit_starts[output + 1] > s_.edit_starts[output]);
  }
  TileSummary* summaries(int32_t output, bool after_edits) {
    return summaries_.data() + ((int64_t)after_edits * s_.outputs + output) * vocab_tiles_;
  }

  void head(const OpRecord& op, int32_t index, int thread) {
    if (s_.outputs == 0) return;
    const Weight& w = matrix(op, 0);
    const Acts acts = {reinterpret_cast<uint8_t*>(align64(reinterpret_cast<int64_t>(head_acts_.data()))), act_kind_of(w.format),
                       s_.outputs, w.cols};
    float* scratch = reinterpret_cast<float*>(p_.scratch_[thread]);
    share_rows(index, s_.outputs, [&](int32_t i) {
      const float* x = rows_of(op.x, s_.output_rows[i]);
      if (op.vector[0] >= 0) {
        p_.kernels_->rows->rms_norm(x, vector(op, 0), op.eps, w.cols, scratch);
        x = scratch;
      }
      if (s_.wants[i] == kHidden) std::memcpy(s_.hidden + (int64_t)result_rows_[i] * w.cols, x, (size_t)w.cols * 4);
      p_.kernels_->matmul->quantize(x, &acts, i, 0, w.cols);
    });
    pool_.barrier();
    const int32_t tiles = tile_count(s_.outputs), blocks = divide_up(tiles, kBlockTiles);
    share(index, vocab_tiles_ * blocks, [&](int32_t unit) {
      const int32_t tile0 = unit / vocab_tiles_ * kBlockTiles;
      vocab_tile(w, acts, unit % vocab_tiles_, tile0, std::min(tile0 + kBlockTiles, tiles), scratch);
    }, 1);
    pool_.barrier();
    share(index, s_.outputs, [&](int32_t i) { merge(i); }, 2);
  }

  void vocab_tile(const Weight& w, const Acts& acts, int32_t v, int32_t tile0, int32_t tile1, float* logits) {
    const RowKernels& k = *p_.kernels_->rows;
    const int32_t row0 = tile_begin(s_.outputs, tile0), row1 = tile_begin(s_.outputs, tile1);
    const int32_t base = v * kVocabTile, n = std::min(kVocabTile, w.rows - base);
    p_.kernels_->matmul->matmul(&w, v * kVocabPanels, std::min((v + 1) * kVocabPanels, w.panels), &acts, tile0, tile1,
                                nullptr, nullptr, 0, logits - (int64_t)row0 * kVocabTile, kVocabTile);
    for (int32_t i = row0; i < row1; ++i) {
      float* x = logits + (int64_t)(i - row0) * kVocabTile;
      k.summarize_tile(x, n, base, summaries(i, false) + v);
      if (s_.wants[i] == kLogits)
        std::memcpy(s_.logits + (int64_t)result_rows_[i] * w.rows + base, x, (size_t)n * 4);
      if (edited(i)) {
        const int32_t begin = s_.edit_starts == nullptr ? 0 : s_.edit_starts[i];
        const int32_t count = s_.edit_starts == nullptr ? 0 : s_.edit_starts[i + 1] - begin;
        k.edit_tile(x, base, n, s_.masks == nullptr ? nullptr : s_.masks + i * s_.mask_words, s_.edits + begin, count);
        k.summarize_tile(x, n, base, summaries(i, true) + v);
      }
      if (s_.wants[i] == kTopK && s_.top_k > 0) {
        const int64_t at = ((int64_t)i * vocab_tiles_ + v) * s_.top_k;
        k.top_k_tile(x, n, base, s_.top_k, top_ids_.data() + at, top_values_.data() + at);
      }
    }
  }

  void merge(int32_t i) {
    const RowKernels& k = *p_.kernels_->rows;
    TileSummary whole;
    k.merge_summaries(summaries(i, false), vocab_tiles_, &whole);
    s_.log_sum_exp[i] = log_sum_exp(&whole);
    if (edited(i)) k.merge_summaries(summaries(i, true), vocab_tiles_, &whole);
    s_.argmax[i] = whole.best;
    if (s_.wants[i] == kTopK && s_.top_k > 0) {
      const int64_t at = (int64_t)i * vocab_tiles_ * s_.top_k;
      k.merge_top_k(top_ids_.data() + at, top_values_.data() + at, vocab_tiles_, s_.top_k,
                    s_.top_ids + (int64_t)i * s_.top_k, s_.top_logits + (int64_t)i * s_.top_k);
    }
  }

  Program& p_;
  ThreadPool& pool_;
  const Step& s_;
  std::vector<std::vector<AttentionUnit>> units_;  // by layer group
  int32_t num_arrivals_ = 0;
  int64_t num_partials_ = 0;
  std::unique_ptr<std::atomic<int32_t>[]> arrivals_;
  std::vector<float> partials_;
  int32_t vocab_tiles_ = 0;
  std::vector<TileSummary> summaries_;  // [before, after edits][output][vocabulary tile]
  std::vector<int32_t> top_ids_;
  std::vector<float> top_values_;
  std::vector<uint8_t> head_acts_;
  std::vector<int32_t> result_rows_;  // row of logits or hidden of each output
};

Program::Program(const KernelTable* kernels, std::vector<OpRecord> ops, std::vector<BufferSpec> buffers,
                 std::vector<Weight> matrices, std::vector<const float*> vectors, std::vector<LayerGroup> groups,
                 const float* rope_cos, const float* rope_sin, int32_t max_rows, int threads)
    : kernels_(kernels), ops_(std::move(ops)), buffers_(std::move(buffers)), matrices_(std::move(matrices)),
      vectors_(std::move(vectors)), groups_(std::move(groups)), rope_cos_(rope_cos), rope_sin_(rope_sin),
      max_rows_(max_rows), threads_(threads), counters_(new Counter[3 * ops_.size()]) {
  int32_t width = 0, dim = 0;
  for (const BufferSpec& b : buffers_) width = std::max(width, b.width);
  for (const LayerGroup& g : groups_) {
    dim = std::max(dim, g.layout.k_dim + g.layout.v_dim);
    const int64_t staged = (int64_t)kUnitAttentionRows * g.layout.v_dim * 4;
    scratch_bytes_ = std::max(scratch_bytes_, align64(attention_scratch_bytes(&g.layout)) + staged);
  }
  const int64_t unit = std::max({kVocabTile, 2 * kGateUpPanels * 16, dim});
  scratch_bytes_ = align64(std::max({scratch_bytes_, kBlockRows * unit * 4, (int64_t)width * 4}));

  for (const BufferSpec& b : buffers_) arena_bytes_ += align64(row_bytes(b) * max_rows);
  arena_bytes_ += threads * scratch_bytes_;
  void* arena = mmap(nullptr, arena_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (arena == MAP_FAILED) throw std::bad_alloc();
  arena_ = static_cast<uint8_t*>(arena);
  uint8_t* next = arena_;
  for (const BufferSpec& b : buffers_) {
    buffer_data_.push_back(next);
    next += align64(row_bytes(b) * max_rows);
  }
  for (int t = 0; t < threads; ++t, next += scratch_bytes_) scratch_.push_back(next);
}

Program::~Program() { munmap(arena_, arena_bytes_); }

void Program::run(ThreadPool& pool, const Step& step) {
  if (pool.size() != threads_) throw std::invalid_argument("pool: not the one that this program was made for");
  Run run(*this, pool, step);
  pool.run([](void* context, int thread) { static_cast<Run*>(context)->execute(thread); }, &run);
}

}  // namespace octavo
