// cpuid and xgetbv themselves: compilers differ in the names that __builtin_cpu_supports knows.
#include "cpu_features.h"

#include <cstdint>

#if defined(__x86_64__)
#include <cpuid.h>

namespace octavo {
namespace {

struct Registers {
  uint32_t eax, ebx, ecx, edx;
};

Registers cpuid(uint32_t leaf, uint32_t subleaf) {
  Registers r{};
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx,
                    &r.edx);  // leaves zeros if there is no such leaf
  return r;
}

bool bit(uint32_t word, int index) { return word >> index & 1; }

// The state components that the operating system saves; only valid with OSXSAVE.
uint64_t saved_state() {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t)high << 32 | low;
}

}  // namespace

CpuFeatures cpu_features() {
  const Registers one = cpuid(1, 0), seven = cpuid(7, 0);
  const Registers seven_one = seven.eax >= 1 ? cpuid(7, 1) : Registers{};
  const uint64_t state = bit(one.ecx, 27) ? saved_state() : 0;
  const bool ymm = (state & 0x06) == 0x06, zmm = (state & 0xe6) == 0xe6;

  CpuFeatures f{};
  f.avx2 = ymm && bit(one.ecx, 28) && bit(one.ecx, 12) && bit(one.ecx, 29) && bit(seven.ebx, 5) &&
           bit(seven.ebx, 8);
  f.avxvnni = f.avx2 && bit(seven_one.eax, 4);
  f.avx512 = f.avx2 && zmm && bit(seven.ebx, 16) && bit(seven.ebx, 17) && bit(seven.ebx, 30) &&
             bit(seven.ebx, 31) && bit(seven.ecx, 1) && bit(seven.ecx, 11);
  f.avx512bf16 = f.avx512 && bit(seven_one.eax, 5);
  const Registers vendor = cpuid(0, 0);
  f.fma_beats_bf16_dots = vendor.ebx == signature_INTEL_ebx && vendor.edx == signature_INTEL_edx &&
                          vendor.ecx == signature_INTEL_ecx;
  return f;
}

}  // namespace octavo

#else

namespace octavo {
CpuFeatures cpu_features() { return {}; }
}  // namespace octavo

#endif
