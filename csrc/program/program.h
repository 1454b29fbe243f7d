// program.h: the native interpreter. A program is a list of op records over row buffers; all
// threads of a pool run it together (SPMD), with a barrier after each phase of an op.
//
// Comes in: records and weights once, then a Step (the arrays of octavo.batch) a run. Goes out:
// what the step points at. Knows nothing of Python, files, requests or the meaning of tokens. What
// is fused is decided in program/fuse.py; this file only obeys. Bits never depend on how work is
// cut into units: kernels promise that.
#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "dispatch.h"
#include "formats.h"
#include "huge_pages.h"
#include "kernels/attention.h"
#include "kernels/matmul.h"
#include "program/ops.h"
#include "thread_pool.h"

namespace octavo {

struct LayerGroup {
  KVLayout layout;
  uint8_t* pages;
  int32_t window;         // tokens a row sees; 0 = all
  int32_t beginning;      // tokens that it sees beside its window, the first ones
  int64_t blocks;         // that the pages hold
  int32_t sinks = -1;     // the group that has the first block of every sequence; -1: this one
  bool is_sinks = false;  // it has those of another group, and no op names it

  int32_t sinks_end() const { return sinks < 0 ? 0 : layout.block_size; }  // a position
};

struct RopeTable {
  const float *cos, *sin;  // (context, half); or of a step's rows, (max_rows, half)
  int32_t half;
};

struct Slopes {  // of query heads; see AttentionArgs
  const float* of_heads;
  int32_t heads;
  bool rounded;
};

// Rows that stay in a file, in GGML's blocks, where it is mapped.
struct FileTable {
  const uint8_t* data;
  int32_t ggml_type;
  int32_t rows, cols;
  int64_t row_bytes, row_blocks;
};

// What a program is made of. It points at weights, pages and tables that others keep alive.
struct ProgramParts {
  std::vector<OpRecord> ops;
  std::vector<BufferSpec> buffers;
  std::vector<Weight> matrices;
  std::vector<FileTable> tables;
  std::vector<const float*> vectors;
  std::vector<int64_t> vector_sizes;
  std::vector<LayerGroup> groups;
  std::vector<RopeTable> rope_tables;
  std::vector<Slopes> slopes;
  bool rope_by_row = false;  // tables are of the rows that a step has, and change before it runs
  int64_t context = 0;       // positions are below it
  int32_t max_rows = 0;

  int64_t vocab() const { return matrices[ops.back().matrix[0]].rows; }
  int64_t hidden() const { return matrices[ops.back().matrix[0]].cols; }
  // Positions that every table of them has a row for.
  int64_t embedded_positions() const {
    int64_t found = context;
    for (const OpRecord& op : ops)
      if (op.code == kEmbed && op.matrix[1] >= 0)
        found = std::min(found, matrices[op.matrix[1]].rows - (int64_t)op.offset);
    return found;
  }
  int64_t embedding_rows() const { return matrices[ops.front().matrix[0]].rows; }
};

struct Step;

constexpr int32_t kPhases = 4;  // of an op, at most

class Program {
 public:
  // The parts have passed check_program.
  Program(const KernelTable* kernels, ProgramParts parts, int threads);
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  // The pool has the number of threads given above. One run at a time; others wait.
  void run(ThreadPool& pool, const Step& step);

  const ProgramParts& parts() const { return parts_; }

 private:
  friend class Run;

  std::mutex run_mutex_;
  const KernelTable* kernels_;
  const ProgramParts parts_;
  int threads_;
  int64_t scratch_bytes_;  // of one thread
  // Buffers, then scratch of each thread; touched as far as rows reach. In small pages rows would
  // take each other's places in L2, which goes by real addresses.
  HugePages arena_;
  std::vector<uint8_t*> buffer_data_;
  std::vector<uint8_t*> scratch_;
  HugePages expert_rows_;          // on their way through the experts of an op (ExpertPlaces)
  std::vector<float> partials_;    // of attention's chunks; as many as any step had, and a few
  std::vector<float> drawn_rows_;  // edited logits that a step draws from; as many as one ever had
  // Units that were taken of each thread's part: kPhases rows of them for each op.
  int64_t taken_stride_;
  std::unique_ptr<std::atomic<int32_t>[]> taken_;
};

}  // namespace octavo
