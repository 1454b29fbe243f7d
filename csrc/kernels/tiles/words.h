// words.h: the tile registers of AMX as words, for the sources that are compiled once per tile
// level: `amx` over the instructions, `amx_plain` over plain code that follows what the processor's
// manual says of them, to the bit. Plain tiles run wherever AVX-512 does, and only in tests.
//
// A tile is up to 16 rows of up to 64 bytes, in one of eight registers whose number is known when
// the code is compiled. One object is the tiles of one thread while it lives: they are shaped and
// cleared when it is made and given back when it ends, so a thread that sleeps holds none. A thread
// has at most one such object at a time.
//
//   Tiles t(shapes)         shapes of all tiles that will be named; the others must not be
//   t.zero<T>()
//   t.load<T>(p, stride)    row i from p + i*stride; bytes are counted, and nothing else is read
//   t.store<T>(p, stride)
//   t.dot_s8<C, A, B>()     int32 C[m][n] += sum over k of A[m][k] * B[k/4][n][k%4]; wraps
//   t.dot_s8u8<C, A, B>()   the same of unsigned bytes in B
//   t.dot_bf16<C, A, B>()   float C[m][n] += even + odd, with one chain of fma for the even k of a
//                           row of A and one for the odd k, each from 0 on, k rising; every
//                           denormal, read or made, is 0
// with A (M rows, K bytes), B (K/4 rows, 4*N bytes), C (M rows, 4*N bytes), K in bytes.
#pragma once
#include "kernels/simd.h"

#define OCTAVO_TILE_MEMBER __attribute__((always_inline)) inline

namespace octavo::OCTAVO_ISA {

constexpr int kTiles = 8, kTileRows = 16, kTileBytes = 64;  // registers; the most of one

struct TileShapes {
  uint8_t rows[kTiles];
  uint16_t bytes[kTiles];  // of a row
};

}  // namespace octavo::OCTAVO_ISA

#if OCTAVO_LEVEL == OCTAVO_LEVEL_amx
#include "kernels/tiles/words_amx.h"
#else
#include "kernels/tiles/words_plain.h"
#endif
