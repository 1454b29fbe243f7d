// simd_probe.h: every word of kernels/simd.h as a callable, so that tests can compare each level
// with numpy.
#pragma once
#include <cstdint>

namespace octavo {

struct ProbeWord {
  const char* name;
  void (*run)(const uint8_t* a, const uint8_t* b, const uint8_t* c, uint8_t* out);  // 64 bytes each
};

struct SimdProbe {
  const ProbeWord* words;
  int32_t count;
};

}  // namespace octavo
