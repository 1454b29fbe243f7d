// program.h: the native interpreter. A program is a list of op records over row buffers; all threads of a pool run it
// together (SPMD), with a barrier after each phase of an op.
//
// Comes in: records and weights once, then a Step (the arrays of octavo.batch.Batch) a run. Goes out: the arrays of
// StepOutput. Knows nothing of Python, files, requests or the meaning of tokens. What is fused is decided in
// program/fuse.py; this file only obeys. Bits never depend on how work is cut into units: kernels promise that.
#pragma once
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "kernels/attention.h"
#include "dispatch.h"
#include "formats.h"
#include "kernels/matmul.h"
#include "kernels/rows.h"
#include "thread_pool.h"

namespace octavo {

enum OpCode : int32_t {
  kEmbed = 0,
  kRmsNorm = 1,
  kQuantize = 2,
  kNormQuantize = 3,
  kMatmul = 4,
  kRope = 5,
  kStoreKV = 6,
  kAttend = 7,
  kAttendQuantize = 8,
  kSwiGLU = 9,
  kGateUp = 10,
  kQKV = 11,
  kHead = 12,
};

// One op; the same bytes as octavo.program.encode.RECORD. Unused indices are -1.
struct OpRecord {
  int32_t code;
  int32_t x, y, add, out;  // buffers
  int32_t matrix[3];       // packed weights
  int32_t vector[3];       // norms and biases
  int32_t heads, head_dim, rotary_dim, rope_style;
  int32_t row_kind;        // the ActKind that the head packs its rows to
  int32_t group, layer;    // KV layer group, layer inside it
  float eps, scale;
};

struct BufferSpec {
  int32_t width;  // columns
  int32_t kind;   // -1: float rows; else the ActKind of packed rows
};

struct LayerGroup {
  KVLayout layout;
  uint8_t* pages;
  int32_t window;  // tokens a row sees; 0 = all
};

enum Want : int32_t { kArgmax = 0, kTopK = 1, kLogits = 2, kHidden = 3 };

struct Step {
  int32_t rows, seqs, outputs;
  const int32_t *tokens, *positions, *row_starts;
  const int32_t* write_starts;  // (seqs,) rows at positions before it store no K and V
  const int32_t* block_tables;  // (groups, seqs, max_blocks)
  int32_t max_blocks;
  const int32_t *output_rows, *wants;
  int32_t top_k;
  const uint32_t* masks;  // (outputs, mask_words) or null
  int64_t mask_words;
  const int32_t* edit_starts;  // (outputs + 1,) or null
  const Edit* edits;
  // results
  int32_t* argmax;
  float* log_sum_exp;
  int32_t* top_ids;
  float* top_logits;
  float* logits;   // by output that wants kLogits, in order
  float* hidden;   // by output that wants kHidden, in order
  uint64_t* op_ns;  // (ops,) nanoseconds of thread 0, or null
};

class Program {
 public:
  Program(const KernelTable* kernels, std::vector<OpRecord> ops, std::vector<BufferSpec> buffers,
          std::vector<Weight> matrices, std::vector<const float*> vectors, std::vector<LayerGroup> groups,
          const float* rope_cos, const float* rope_sin, int32_t max_rows, int threads);
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  // The pool has the number of threads given above. One run at a time; others wait.
  void run(ThreadPool& pool, const Step& step);


 private:
  friend class Run;

  std::mutex run_mutex_;
  const KernelTable* kernels_;
  std::vector<OpRecord> ops_;
  std::vector<BufferSpec> buffers_;
  std::vector<Weight> matrices_;
  std::vector<const float*> vectors_;
  std::vector<LayerGroup> groups_;
  const float *rope_cos_, *rope_sin_;  // (context, rotary_dim / 2)
  int32_t max_rows_;
  int threads_;
  int64_t scratch_bytes_ = 0;      // of one thread
  uint8_t* arena_ = nullptr;       // buffers, then scratch of each thread; touched as far as rows reach
  int64_t arena_bytes_ = 0;
  std::vector<uint8_t*> buffer_data_;
  std::vector<uint8_t*> scratch_;
  struct alignas(128) Counter { std::atomic<int32_t> next{0}; };
  std::unique_ptr<Counter[]> counters_;  // two for each op, one each for phases that share out units
};

}  // namespace octavo
