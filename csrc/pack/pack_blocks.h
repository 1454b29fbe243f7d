// pack_blocks.h: word tricks shared by the packers: 16 rows of 32-bit words become words of 16
// rows.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace octavo {

static inline uint32_t load_u32(const uint8_t* p) {
  uint32_t v;
  std::memcpy(&v, p, 4);
  return v;
}
static inline uint64_t load_u64(const uint8_t* p) {
  uint64_t v;
  std::memcpy(&v, p, 8);
  return v;
}
static inline void store_u32(uint8_t* p, uint32_t v) { std::memcpy(p, &v, 4); }
static inline void store_u64(uint8_t* p, uint64_t v) { std::memcpy(p, &v, 8); }

// Four words of each of four rows: dst + w*64 + i*4 = word w of row i, xored with `flip`.
static inline void transpose_4x4(const uint8_t* const row[4], uint32_t flip, uint8_t* dst) {
#if defined(__SSE2__)
  __m128i v[4];
  for (int i = 0; i < 4; ++i)
    v[i] = _mm_xor_si128(_mm_loadu_si128((const __m128i*)row[i]), _mm_set1_epi32((int)flip));
  const __m128i a = _mm_unpacklo_epi32(v[0], v[1]), b = _mm_unpacklo_epi32(v[2], v[3]);
  const __m128i c = _mm_unpackhi_epi32(v[0], v[1]), d = _mm_unpackhi_epi32(v[2], v[3]);
  _mm_storeu_si128((__m128i*)dst, _mm_unpacklo_epi64(a, b));
  _mm_storeu_si128((__m128i*)(dst + 64), _mm_unpackhi_epi64(a, b));
  _mm_storeu_si128((__m128i*)(dst + 128), _mm_unpacklo_epi64(c, d));
  _mm_storeu_si128((__m128i*)(dst + 192), _mm_unpackhi_epi64(c, d));
#else
  for (int w = 0; w < 4; ++w)
    for (int i = 0; i < 4; ++i) store_u32(dst + w * 64 + i * 4, load_u32(row[i] + w * 4) ^ flip);
#endif
}

// `words` (a multiple of 4) 32-bit words of `rows` rows, `stride` bytes apart: dst + w*64 + r*4 =
// word w of row r.
static inline void transpose_rows(const uint8_t* src, int64_t stride, int rows, int words,
                                  uint32_t flip, uint8_t* dst) {
  int r = 0;
  for (; r + 4 <= rows; r += 4) {
    for (int w = 0; w < words; w += 4) {
      const uint8_t* const row[4] = {src + r * stride + w * 4, src + (r + 1) * stride + w * 4,
                                     src + (r + 2) * stride + w * 4,
                                     src + (r + 3) * stride + w * 4};
      transpose_4x4(row, flip, dst + w * 64 + r * 4);
    }
  }
  for (; r < rows; ++r)
    for (int w = 0; w < words; ++w)
      store_u32(dst + w * 64 + r * 4, load_u32(src + r * stride + w * 4) ^ flip);
}

// The 5th bits of 32 weights of row r: four bits of step j go to bit r*4 of word j.
static inline void scatter_fifth_bits(uint32_t bits, int r, uint64_t (&high)[8]) {
  for (int j = 0; j < 8; ++j) high[j] |= (uint64_t)(bits >> (4 * j) & 15) << (4 * r);
}

// Two bits of 32 values (bits `shift`, shift+1 of 32 bytes): 4 bytes for steps 0..3, 4 for
// steps 4..7.
static inline void gather_two_bits(const uint8_t* src, int shift, uint8_t* first, uint8_t* second) {
  for (int half = 0; half < 2; ++half) {
    uint32_t out = 0;
    for (int s = 0; s < 4; ++s)
      out |= (load_u32(src + half * 16 + s * 4) >> shift & 0x03030303u) << (2 * s);
    store_u32(half ? second : first, out);
  }
}

}  // namespace octavo
