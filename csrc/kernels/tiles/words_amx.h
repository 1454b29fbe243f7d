// words_amx.h: the words of words.h as instructions.
//
// Written as assembly: gcc's own intrinsics want a literal for a tile's number, and say nothing of
// the memory that they read and write.
#pragma once
#include <immintrin.h>

namespace octavo::OCTAVO_ISA {

class Tiles {
 public:
  OCTAVO_TILE_MEMBER explicit Tiles(const TileShapes& shapes) {
    struct {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    static_assert(sizeof config == 64);
    for (int i = 0; i < kTiles; ++i) {
      config.bytes[i] = shapes.bytes[i];
      config.rows[i] = shapes.rows[i];
    }
    __asm__ volatile("ldtilecfg %0" ::"m"(config));
  }
  OCTAVO_TILE_MEMBER ~Tiles() { __asm__ volatile("tilerelease"); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;

  template <int T> OCTAVO_TILE_MEMBER void zero() {
    __asm__ volatile("tilezero %%tmm%c0" ::"n"(T));
  }
  template <int T> OCTAVO_TILE_MEMBER void load(const void* p, int64_t stride) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(p), "r"(stride), "n"(T) : "memory");
  }
  template <int T> OCTAVO_TILE_MEMBER void store(void* p, int64_t stride) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(p), "r"(stride), "n"(T) : "memory");
  }
  template <int C, int A, int B> OCTAVO_TILE_MEMBER void dot_s8() {
    __asm__ volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"n"(C), "n"(A), "n"(B));
  }
  template <int C, int A, int B> OCTAVO_TILE_MEMBER void dot_s8u8() {
    __asm__ volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"n"(C), "n"(A), "n"(B));
  }
  template <int C, int A, int B> OCTAVO_TILE_MEMBER void dot_bf16() {
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"n"(C), "n"(A), "n"(B));
  }
};

}  // namespace octavo::OCTAVO_ISA
