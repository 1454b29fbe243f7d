// tiles/avx512.h: what tile levels take from level avx512, whose kernels they have but for those of
// this folder.
#pragma once
#include "kernels/attention.h"
#include "kernels/matmul.h"

// A tile that is held while a frame is unwound would never be given back.
#ifdef __cpp_exceptions
#error "the sources of kernels/tiles are compiled without exceptions"
#endif

namespace octavo::avx512 {

const MatmulKernels* matmul_kernels();
const AttentionKernels* attention_kernels();
void expand_row(const Weight* w, int32_t row, float* out);
void spin_dot(int64_t iterations, int64_t* sink);
void read_sum(const void* data, int64_t bytes, int64_t* sink);
void spin_fma(int64_t iterations, int64_t* sink);

}  // namespace octavo::avx512
