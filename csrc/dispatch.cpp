// Collects the function tables that csrc/kernels/*.cpp export once per ISA level.
#include "dispatch.h"

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "cpu_features.h"

#ifndef OCTAVO_HAVE_base
#define OCTAVO_HAVE_base 0
#endif
#ifndef OCTAVO_HAVE_avx2
#define OCTAVO_HAVE_avx2 0
#endif
#ifndef OCTAVO_HAVE_avxvnni
#define OCTAVO_HAVE_avxvnni 0
#endif
#ifndef OCTAVO_HAVE_avx512
#define OCTAVO_HAVE_avx512 0
#endif
#ifndef OCTAVO_HAVE_avx512bf16
#define OCTAVO_HAVE_avx512bf16 0
#endif
#ifndef OCTAVO_HAVE_amx
#define OCTAVO_HAVE_amx 0
#endif
#ifndef OCTAVO_HAVE_amx_plain
#define OCTAVO_HAVE_amx_plain 0
#endif

namespace octavo {

#define OCTAVO_DECLARE(level)                  \
  namespace level {                            \
  const MatmulKernels* matmul_kernels();       \
  const AttentionKernels* attention_kernels(); \
  const RowKernels* row_kernels();             \
  const SimdProbe* simd_probe();               \
  }
OCTAVO_DECLARE(base)
OCTAVO_DECLARE(avx2)
OCTAVO_DECLARE(avxvnni)
OCTAVO_DECLARE(avx512)
OCTAVO_DECLARE(avx512bf16)
#undef OCTAVO_DECLARE

#define OCTAVO_DECLARE_TILES(level)            \
  namespace level {                            \
  const MatmulKernels* matmul_kernels();       \
  const AttentionKernels* attention_kernels(); \
  const TileProbe* tile_probe();               \
  }
OCTAVO_DECLARE_TILES(amx)
OCTAVO_DECLARE_TILES(amx_plain)
#undef OCTAVO_DECLARE_TILES

namespace {

#define OCTAVO_TABLE(level, arithmetic)                                                            \
  KernelTable {                                                                                    \
    #level, arithmetic, level::matmul_kernels(), level::attention_kernels(), level::row_kernels(), \
        level::simd_probe(), nullptr                                                               \
  }

// What has no tiles in it is avx512's, whose fma is faster than bf16 dots where there are tiles.
#define OCTAVO_TILE_TABLE(level, arithmetic)                                 \
  KernelTable {                                                              \
    #level, arithmetic, level::matmul_kernels(), level::attention_kernels(), \
        avx512::row_kernels(), avx512::simd_probe(), level::tile_probe()     \
  }

std::vector<KernelTable> make_tables() {
  [[maybe_unused]] const CpuFeatures& cpu = cpu_features();
  std::vector<KernelTable> tables;
#if OCTAVO_HAVE_base
  tables.push_back(OCTAVO_TABLE(base, "base"));
#endif
#if OCTAVO_HAVE_avx2
  if (cpu.avx2) tables.push_back(OCTAVO_TABLE(avx2, "fma-bf16emulated"));
#endif
#if OCTAVO_HAVE_avxvnni
  if (cpu.avxvnni) tables.push_back(OCTAVO_TABLE(avxvnni, "fma-bf16emulated"));
#endif
#if OCTAVO_HAVE_avx512
  if (cpu.avx512) tables.push_back(OCTAVO_TABLE(avx512, "fma-bf16emulated"));
#endif
#if OCTAVO_HAVE_avx512bf16
  if (cpu.avx512bf16) tables.push_back(OCTAVO_TABLE(avx512bf16, "fma-bf16hardware"));
#endif
#if OCTAVO_HAVE_amx
  if (cpu.amx) tables.push_back(OCTAVO_TILE_TABLE(amx, "amx"));
#endif
  return tables;
}

std::vector<KernelTable> make_plain_tables() {
  std::vector<KernelTable> tables;
#if OCTAVO_HAVE_amx_plain
  if (cpu_features().avx512) tables.push_back(OCTAVO_TILE_TABLE(amx_plain, "amx"));
#endif
  return tables;
}

const std::vector<KernelTable>& tables() {
  static const std::vector<KernelTable> all = make_tables();
  return all;
}

const std::vector<KernelTable>& plain_tables() {
  static const std::vector<KernelTable> all = make_plain_tables();
  return all;
}

std::vector<const char*> names_of(const std::vector<KernelTable>& tables) {
  std::vector<const char*> names;
  for (const KernelTable& table : tables) names.push_back(table.name);
  return names;
}

// The fastest: the highest level but where its bf16 dots are slower than fma.
const KernelTable* default_table() {
  if (cpu_features().fma_beats_bf16_dots && std::strcmp(tables().back().name, "avx512bf16") == 0)
    if (const KernelTable* avx512 = kernel_table("avx512")) return avx512;
  return &tables().back();
}

const KernelTable* choose_table() {
  const char* wanted = std::getenv("OCTAVO_ISA");
  if (wanted == nullptr || *wanted == '\0') return default_table();
  if (const KernelTable* table = kernel_table(wanted)) return table;
  std::string why;
  if (const int error = cpu_features().amx_refusal; error != 0 && std::strcmp(wanted, "amx") == 0)
    why = std::string("the system gives this process no tiles (") + std::strerror(error) + "); ";
  throw std::invalid_argument("OCTAVO_ISA=" + std::string(wanted) + ": " + why +
                              "this build on this machine has " + isa_list());
}

}  // namespace

const KernelTable* kernel_table(const char* isa) {
  for (const std::vector<KernelTable>* some : {&tables(), &plain_tables()}) {
    for (const KernelTable& table : *some)
      if (std::strcmp(table.name, isa) == 0) return &table;
  }
  return nullptr;
}

std::vector<const char*> available_isas() { return names_of(tables()); }
std::vector<const char*> plain_isas() { return names_of(plain_tables()); }

std::string isa_list() {
  std::string names;
  for (const KernelTable& table : tables()) {
    if (!names.empty()) names += ", ";
    names += table.name;
  }
  return names;
}

const KernelTable* best_kernel_table() {
  static const KernelTable* const best = choose_table();
  return best;
}

}  // namespace octavo
