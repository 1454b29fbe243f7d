// pack.h: from GGUF blocks to the packed panels of formats.h, and the memory that holds them.
//
// Knows GGML's block layouts and ours. Knows nothing of files, kernels or threads other than the
// pool it is given.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>

#include "formats.h"
#include "huge_pages.h"
#include "kernels/matmul_layout.h"

namespace octavo {

class ThreadPool;

// GGML's own numbers, as in a GGUF file.
enum GgmlType : int {
  kGgmlF32 = 0,
  kGgmlF16 = 1,
  kGgmlQ4_0 = 2,
  kGgmlQ4_1 = 3,
  kGgmlQ5_0 = 6,
  kGgmlQ5_1 = 7,
  kGgmlQ8_0 = 8,
  kGgmlQ2_K = 10,
  kGgmlQ3_K = 11,
  kGgmlQ4_K = 12,
  kGgmlQ5_K = 13,
  kGgmlQ6_K = 14,
  kGgmlIQ4_NL = 20,
  kGgmlIQ4_XS = 23,
  kGgmlBF16 = 30,
  kGgmlMXFP4 = 39,
};

struct GgmlBlock {
  const char* name;
  int64_t values;
  int64_t bytes;
  int32_t format;  // the packed format that holds it without loss; F16 has none and becomes BF16,
                   // rounded to nearest even
};
const GgmlBlock& ggml_block(
    int ggml_type);  // throws std::invalid_argument on a type that Octavo does not run

const char* format_name(int32_t format);
int32_t format_named(const std::string& name);  // throws std::invalid_argument that lists the names
// Its own format, or BF16, or F32; floats also as W8 or W4S.
bool can_pack(int ggml_type, int32_t format);

// Packs panels [panel0, panel1) of a (rows, cols) matrix; dst is where panel 0 begins. Rows above
// `rows` become zero. BF16 and F32 take any type: dequantised in float32, and for BF16 rounded to
// nearest even. Floats as W8 or W4S are quantised as GGML does to Q8_0 and Q4_0. False where a
// block's scale is no finite fp16, and the panel is of no use. can_pack must hold.
[[nodiscard]] bool pack_panels(int ggml_type, const uint8_t* src, int64_t rows, int64_t cols,
                               WeightFormat format, int64_t panel0, int64_t panel1, uint8_t* dst);

// Dequantises `count` whole blocks to float32, as GGML does.
void dequantize_blocks(int ggml_type, const uint8_t* src, int64_t count, float* out);

// Anonymous memory for weights, 2 MiB-aligned and in huge pages where the system has them. Small
// weights waste less and get huge pages too when they share one.
class WeightMemory {
 public:
  explicit WeightMemory(int64_t bytes);  // throws std::bad_alloc

  uint8_t* take(
      int64_t bytes);  // 64-byte aligned, zero; throws std::length_error when there is no room
  int64_t capacity() const { return capacity_; }
  int64_t used() const { return used_; }

 private:
  int64_t capacity_;
  int64_t used_ = 0;
  HugePages pages_;
};

class PackedWeight {
 public:
  // In memory of its own, or taken from `memory`.
  PackedWeight(int64_t rows, int64_t cols, int32_t format,
               std::shared_ptr<WeightMemory> memory = nullptr);
  // Over bytes packed before, which the caller keeps alive; 64-byte aligned.
  PackedWeight(int64_t rows, int64_t cols, int32_t format, uint8_t* packed);

  const Weight& weight() const { return weight_; }
  uint8_t* data() { return data_; }
  int64_t nbytes() const { return weight_.panel_stride * weight_.panels; }
  static int64_t bytes_for(int64_t rows, int64_t cols,
                           int32_t format);  // throws std::invalid_argument on a bad shape

 private:
  std::shared_ptr<WeightMemory> memory_;
  uint8_t* data_;
  Weight weight_;
};

// Packs a whole tensor on all threads of the pool. Throws std::overflow_error for floats that have
// no finite scale, and for scales of MXFP4 that are NaN, or in W4F none of fp16.
void pack_weight(ThreadPool& pool, const uint8_t* src, int ggml_type, PackedWeight& weight);

}  // namespace octavo
