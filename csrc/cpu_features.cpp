// cpuid and xgetbv themselves: compilers differ in the names that __builtin_cpu_supports knows.
#include "cpu_features.h"

#include <unistd.h>

#include <cstdint>

namespace octavo {

int64_t l2_bytes() {
  static const int64_t bytes = [] {
#ifdef _SC_LEVEL2_CACHE_SIZE
    const long found = sysconf(_SC_LEVEL2_CACHE_SIZE);
    if (found > 0) return (int64_t)found;
#endif
    return (int64_t)1 << 20;
  }();
  return bytes;
}

}  // namespace octavo

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>

#include <cerrno>

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

// Their 8 KB a thread are saved only for processes that asked: 0, or why the system refuses (too
// old, forbidden, or some thread's signal stack too small for them).
int ask_for_tiles() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0 ? 0 : errno;
}

CpuFeatures look() {
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
  if (f.avx512bf16 && (state & 0x60000) == 0x60000 && bit(seven.edx, 22) && bit(seven.edx, 24) &&
      bit(seven.edx, 25)) {
    f.amx_refusal = ask_for_tiles();
    f.amx = f.amx_refusal == 0;
  }
  const Registers vendor = cpuid(0, 0);
  f.fma_beats_bf16_dots = vendor.ebx == signature_INTEL_ebx && vendor.edx == signature_INTEL_edx &&
                          vendor.ecx == signature_INTEL_ecx;
  return f;
}

}  // namespace

const CpuFeatures& cpu_features() {
  static const CpuFeatures found = look();
  return found;
}

}  // namespace octavo

#else

namespace octavo {
const CpuFeatures& cpu_features() {
  static const CpuFeatures none{};
  return none;
}
}  // namespace octavo

#endif
