// cpu_features.h: what this processor, and the operating system on it, can run. Knows nothing of
// kernels.
#pragma once
#include <cstdint>

namespace octavo {

struct CpuFeatures {
  bool avx2;                 // AVX2, FMA, F16C, BMI2 and saved ymm state
  bool avxvnni;              // avx2 and the VEX form of vpdpbusd
  bool avx512;               // F, BW, DQ, VL, VNNI, VBMI and saved zmm state
  bool avx512bf16;           // avx512 and vdpbf16ps
  bool amx;                  // avx512bf16, AMX with int8 and bf16, and leave to use its tiles
  int amx_refusal;           // errno of asking for that leave; 0: it was given, or not asked for
  bool fma_beats_bf16_dots;  // Intel: two fma a cycle, a vdpbf16ps every other
};

// Looked at once a process, for the leave to use tiles is. All false except on x86-64.
const CpuFeatures& cpu_features();

// Of the cache that a core has for itself behind L1; 1 MiB where the system does not say.
int64_t l2_bytes();

}  // namespace octavo
