// dispatch.h: which ISA levels this build has and this machine can run, and the table of kernels of
// each.
//
// The only native source that reads an environment variable: OCTAVO_ISA forces a level below the
// best.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace octavo {

struct MatmulKernels;
struct AttentionKernels;
struct RowKernels;
struct SimdProbe;
struct TileProbe;

// Part of the numerics id (octavo.kernels.numerics_id), under which K and V may be reused. Add 1
// whenever a kernel gives other bits for the same input, at any level;
// tests/kernels/test_numerics_id.py tells when that has happened.
constexpr int32_t kKernelVersion = 2;

struct KernelTable {
  const char* name;
  const char* arithmetic;  // levels with the same class give the same bits
  const MatmulKernels* matmul;
  const AttentionKernels* attention;
  const RowKernels* rows;
  const SimdProbe* probe;
  const TileProbe* tiles;  // nullptr: the level has none
};

// nullptr if the level is unknown, was not compiled, or needs instructions that this machine has
// not.
const KernelTable* kernel_table(const char* isa);

// Names of the levels that run here, the best last.
std::vector<const char*> available_isas();

std::string isa_list();  // the same names as one text, for messages

// Names of the levels that kernel_table() accepts besides: plain code in place of instructions, so
// that the kernels over them can be tested without. Slow, never chosen unless named.
std::vector<const char*> plain_isas();

// The best level, or the one OCTAVO_ISA names; throws std::invalid_argument if that one is not
// available.
const KernelTable* best_kernel_table();

}  // namespace octavo
