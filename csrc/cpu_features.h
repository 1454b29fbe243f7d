// cpu_features.h: what this processor, and the operating system on it, can run. Knows nothing of
// kernels.
#pragma once

namespace octavo {

struct CpuFeatures {
  bool avx2;                 // AVX2, FMA, F16C, BMI2 and saved ymm state
  bool avxvnni;              // avx2 and the VEX form of vpdpbusd
  bool avx512;               // F, BW, DQ, VL, VNNI, VBMI and saved zmm state
  bool avx512bf16;           // avx512 and vdpbf16ps
  bool fma_beats_bf16_dots;  // Intel: two fma a cycle, a vdpbf16ps every other
};

CpuFeatures cpu_features();  // all false except on x86-64

}  // namespace octavo
