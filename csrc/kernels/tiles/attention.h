// tiles/attention.h: attention in tiles over int8 pages, which tiles/attention.cpp chooses.
#pragma once
#include "kernels/attention.h"

namespace octavo::OCTAVO_ISA {

// The bits of these are those of avx512's.
const AttentionKernels* byte_attention_kernels();

}  // namespace octavo::OCTAVO_ISA
