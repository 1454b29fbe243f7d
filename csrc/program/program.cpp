// program.cpp: a program's memory, and the order of its ops.
#include "program/program.h"

#include <algorithm>
#include <chrono>
#include <stdexcept>

#include "program/run.h"

namespace octavo {
namespace {

int64_t row_bytes(const BufferSpec& b) {
  return b.kind < 0 ? (int64_t)b.width * 4 : act_row_bytes(b.kind, b.width);
}

int64_t buffer_bytes(const ProgramParts& parts) {
  int64_t bytes = 0;
  for (const BufferSpec& b : parts.buffers) bytes += align64(row_bytes(b) * parts.max_rows);
  return bytes;
}

int64_t expert_bytes(const ProgramParts& parts) {
  int64_t bytes = 0;
  for (const OpRecord& op : parts.ops)
    if (op.code == kExperts)
      bytes = std::max(bytes, expert_places(parts, op, (int64_t)parts.max_rows * op.used).bytes);
  return bytes;
}

// What one thread needs, whatever op it is at.
int64_t scratch_bytes(const ProgramParts& parts) {
  int32_t width = 0, dim = 0;
  int64_t attention = 0;
  for (const BufferSpec& b : parts.buffers) width = std::max(width, b.width);
  for (const LayerGroup& g : parts.groups) {
    dim = std::max(dim, g.layout.k_dim + g.layout.v_dim);
    const int64_t staged = (int64_t)kUnitAttentionRows * g.layout.v_dim * 4;
    attention = std::max(attention, align64(attention_scratch_bytes(&g.layout)) + staged);
  }
  int64_t packed = 0;
  for (const OpRecord& op : parts.ops)
    if (op.code == kHeadLinear)
      packed = std::max(
          packed, kBlockRows * act_row_bytes(op.row_kind[0], parts.matrices[op.matrix[0]].cols));
  const int64_t unit = std::max({kVocabTile, 2 * kGateUpPanels * 16, dim});
  return align64(
      std::max({attention, packed, kBlockRows * unit * 4, (int64_t)kActBlock * width * 4}));
}

}  // namespace

Run::Run(Program& program, ThreadPool& pool, const Step& step)
    : p_(program), parts_(program.parts_), pool_(pool), s_(step), expert_rows_(parts_, step.rows) {
  plan_attention();
  for (size_t i = 0; i < kPhases * parts_.ops.size() * p_.taken_stride_; ++i)
    p_.taken_[i].store(0, std::memory_order_relaxed);
  if (step.outputs > 0) plan_head();
}

void Run::execute(int thread) {
  using Clock = std::chrono::steady_clock;
  Clock::time_point begin = Clock::now();
  for (size_t i = 0; i < parts_.ops.size(); ++i) {
    run_op(parts_.ops[i], (int32_t)i, thread);
    if (s_.op_ns != nullptr && thread == 0) {
      const Clock::time_point end = Clock::now();
      s_.op_ns[i] =
          (uint64_t)std::chrono::duration_cast<std::chrono::nanoseconds>(end - begin).count();
      begin = end;
    }
  }
}

void Run::run_op(const OpRecord& op, int32_t index, int thread) {
  switch (op.code) {
    case kEmbed: embed(op, index, thread); break;
    case kQuantize: quantize(op, index, thread); break;
    case kNormQuantize: norm_quantize(op, index, thread); break;
    case kMatmul: matmul(op, index, thread); break;
    case kStoreKV: store_kv(op, index, thread); break;
    case kAttend:
    case kAttendQuantize: attend(op, index, thread); break;
    case kGateUp: gate_up(op, index, thread); break;
    case kQKV: qkv(op, index, thread); break;
    case kRoute: route(op, index, thread); break;
    case kExperts: experts(op, index, thread); break;
    case kSlice: slice(op, index, thread); break;
    case kHeadLinear: head_linear(op, index, thread); break;
    case kJoin: join(op, index, thread); break;
    case kHead: head(op, index, thread); break;
    default: row_op(op, *row_op_of(op.code), index, thread);
  }
  pool_.barrier();
}

Program::Program(const KernelTable* kernels, ProgramParts parts, int threads)
    : kernels_(kernels), parts_(std::move(parts)), threads_(threads),
      scratch_bytes_(scratch_bytes(parts_)),
      arena_(buffer_bytes(parts_) + threads * scratch_bytes_), expert_rows_(expert_bytes(parts_)),
      taken_stride_((threads + 15) / 16 * 16),
      taken_(new std::atomic<int32_t>[kPhases * parts_.ops.size() * taken_stride_]) {
  uint8_t* next = arena_.data();
  for (const BufferSpec& b : parts_.buffers) {
    buffer_data_.push_back(next);
    next += align64(row_bytes(b) * parts_.max_rows);
  }
  for (int t = 0; t < threads; ++t, next += scratch_bytes_) scratch_.push_back(next);
}

void Program::run(ThreadPool& pool, const Step& step) {
  if (pool.size() != threads_)
    throw std::invalid_argument("pool: not the one that this program was made for");
  pool.refuse_in_child();  // before the lock, as in ThreadPool::run
  const std::lock_guard<std::mutex> lock(
      run_mutex_);  // a run has the counters and row buffers for itself
  Run run(*this, pool, step);
  pool.run([](void* context, int thread) noexcept { static_cast<Run*>(context)->execute(thread); },
           &run);
}

}  // namespace octavo
