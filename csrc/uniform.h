// uniform.h: the number in [0, 1) by which a token is drawn: a hash of the request's seed, the
// answer and the token's position, so that it depends on nothing else.
//
// The hash is BLAKE2b (RFC 7693) of the three as 8 little-endian bytes each, without a key, cut to
// 8 bytes: one block. hashlib has the same in Python, which takes ten times as long.
#pragma once
#include <bit>
#include <cstdint>

namespace octavo {

namespace blake2b {
constexpr uint64_t kStart[8] = {0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b,
                                0xa54ff53a5f1d36f1, 0x510e527fade682d1, 0x9b05688c2b3e6c1f,
                                0x1f83d9abfb41bd6b, 0x5be0cd19137e2179};
constexpr uint8_t kOrder[10][16] = {{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
                                    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
                                    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
                                    {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
                                    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
                                    {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
                                    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
                                    {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
                                    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
                                    {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0}};
constexpr int kRounds = 12, kDigestBytes = 8, kMessageBytes = 24;

inline void mix(uint64_t& a, uint64_t& b, uint64_t& c, uint64_t& d, uint64_t x, uint64_t y) {
  a += b + x;
  d = std::rotr(d ^ a, 32);
  c += d;
  b = std::rotr(b ^ c, 24);
  a += b + y;
  d = std::rotr(d ^ a, 16);
  c += d;
  b = std::rotr(b ^ c, 63);
}

// The first 8 bytes of the digest of three words, as a little-endian number.
inline uint64_t of(uint64_t first, uint64_t second, uint64_t third) {
  const uint64_t message[16] = {first, second, third};  // the rest is zeros
  const uint64_t begin = kStart[0] ^ 0x01010000 ^ kDigestBytes;
  uint64_t v[16] = {begin};
  for (int i = 1; i < 8; ++i) v[i] = kStart[i];
  for (int i = 0; i < 8; ++i) v[8 + i] = kStart[i];
  v[12] ^= kMessageBytes;
  v[14] = ~v[14];  // the last block
  for (int round = 0; round < kRounds; ++round) {
    const uint8_t* at = kOrder[round % 10];
    for (int i = 0; i < 4; ++i)
      mix(v[i], v[4 + i], v[8 + i], v[12 + i], message[at[2 * i]], message[at[2 * i + 1]]);
    for (int i = 0; i < 4; ++i)
      mix(v[i], v[4 + (i + 1) % 4], v[8 + (i + 2) % 4], v[12 + (i + 3) % 4], message[at[8 + 2 * i]],
          message[at[9 + 2 * i]]);
  }
  return begin ^ v[0] ^ v[8];
}
}  // namespace blake2b

// 53 bits: every such number is a double.
inline double uniform(uint64_t seed, uint64_t answer, uint64_t position) {
  return (double)(blake2b::of(seed, answer, position) >> 11) * 0x1p-53;
}

}  // namespace octavo
