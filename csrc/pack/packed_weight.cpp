// packed_weight.cpp: the memory of packed weights, and packing a tensor on all threads.
#include <atomic>
#include <new>

#include "pack/pack.h"
#include "thread_pool.h"

namespace octavo {
namespace {

constexpr int64_t kMaxBytes =
    int64_t{1} << 46;  // more than any machine has; sums of sizes stay inside an int64

int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

int64_t in_range(int64_t bytes) {
  if (bytes < 0 || bytes > kMaxBytes)
    throw std::invalid_argument("nbytes: expected 0..2^46, got " + std::to_string(bytes));
  return bytes < 1 ? 1 : bytes;
}

struct PackJob {
  const uint8_t* src;
  int ggml_type;
  const Weight* weight;
  uint8_t* dst;
  int64_t panels_at_once;
  std::atomic<int64_t> next{0};
  std::atomic<bool> fits{true};
};

void pack_task(void* context, int) noexcept {
  PackJob& job = *static_cast<PackJob*>(context);
  const Weight& w = *job.weight;
  for (;;) {
    const int64_t panel = job.next.fetch_add(job.panels_at_once, std::memory_order_relaxed);
    if (panel >= w.panels) return;
    const int64_t end =
        panel + job.panels_at_once < w.panels ? panel + job.panels_at_once : w.panels;
    if (!pack_panels(job.ggml_type, job.src, w.rows, w.cols, (WeightFormat)w.format, panel, end,
                     job.dst))
      job.fits.store(false, std::memory_order_relaxed);
  }
}

Weight describe(int64_t rows, int64_t cols, int32_t format, const uint8_t* data) {
  return {data,          panel_bytes(format, cols),  format, (int32_t)rows,
          (int32_t)cols, (int32_t)((rows + 15) / 16)};
}

}  // namespace

WeightMemory::WeightMemory(int64_t bytes)
    : capacity_(round_up(in_range(bytes), 64)), pages_(capacity_) {}

uint8_t* WeightMemory::take(int64_t bytes) {
  const int64_t size = round_up(bytes, 64);
  if (size > capacity_ - used_)
    throw std::length_error("memory: " + std::to_string(bytes) + " bytes asked for, " +
                            std::to_string(capacity_ - used_) + " of " + std::to_string(capacity_) +
                            " left");
  uint8_t* const data = pages_.data() + used_;
  used_ += size;
  return data;
}

int64_t PackedWeight::bytes_for(int64_t rows, int64_t cols, int32_t format) {
  const char* name = format_name(format);
  const int64_t step = is_integer_format(format) ? (kSupertiles[format].groups == 8 ? 256 : 32) : 1;
  if (rows < 1 || rows > INT32_MAX - 16)
    throw std::invalid_argument("rows: expected 1..2^31-17, got " + std::to_string(rows));
  if (cols < 1 || cols > INT32_MAX - 256 || cols % step != 0)
    throw std::invalid_argument(std::string("cols: ") + name + " takes positive multiples of " +
                                std::to_string(step) + " below 2^31, got " + std::to_string(cols));
  const int64_t panels = (rows + 15) / 16;
  if (panel_bytes(format, cols) > kMaxBytes / panels)
    throw std::invalid_argument("rows and cols: expected at most 2^46 bytes, got " +
                                std::to_string(rows) + " x " + std::to_string(cols));
  return panel_bytes(format, cols) * panels;
}

PackedWeight::PackedWeight(int64_t rows, int64_t cols, int32_t format,
                           std::shared_ptr<WeightMemory> memory)
    : memory_(memory ? std::move(memory)
                     : std::make_shared<WeightMemory>(bytes_for(rows, cols, format))),
      data_(memory_->take(bytes_for(rows, cols, format))),
      weight_(describe(rows, cols, format, data_)) {}

PackedWeight::PackedWeight(int64_t rows, int64_t cols, int32_t format, uint8_t* packed)
    : data_(packed), weight_(describe(rows, cols, format, packed)) {}

void pack_weight(ThreadPool& pool, const uint8_t* src, int ggml_type, PackedWeight& packed) {
  const Weight& weight = packed.weight();
  const int64_t chunk = (256 << 10) / weight.panel_stride;  // about 0.1 ms of work
  PackJob job{src, ggml_type, &weight, packed.data(), chunk < 1 ? 1 : chunk};
  pool.run(pack_task, &job);
  if (job.fits.load()) return;
  if (ggml_type == kGgmlMXFP4)
    throw std::overflow_error(
        weight.format == W4F ? "a scale of MXFP4 that is NaN (255), or outside fp16's 2^-24 to "
                               "2^15 (weights=bf16 keeps those)"
                             : "a scale of MXFP4 that is NaN (255)");
  throw std::overflow_error("values that are not finite, or too large for a scale in fp16");
}

}  // namespace octavo
