// probe.h: the words of tiles/words.h as callables, so that tests can compare each tile level with
// numpy.
#pragma once
#include <cstdint>

namespace octavo {

// A product of tiles: C (rows, 4 * columns bytes) and A (rows, 4 * steps), B (steps, 4 * columns),
// all at most 16; strides in bytes.
struct TileOperands {
  int rows, columns, steps;
  void* c;
  const void *a, *b;
  int64_t c_stride, a_stride, b_stride;
};

struct TileProbe {
  void (*dot_s8)(const TileOperands& o);    // C += A B, by load, dot and store
  void (*dot_s8u8)(const TileOperands& o);  // the same
  void (*dot_bf16)(const TileOperands& o);  // the same
  void (*zero)(const TileOperands& o);      // C = 0, by zero and store
};

}  // namespace octavo
