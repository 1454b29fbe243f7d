// kv_transpose.h: the V of a tile where pages keep K alone: K's first v_dim values, brought into
// the order of V (kv_formats.h) once for all rows that walk the tile.
//
// What is made of a token is what write_v would have stored of those values, bit for bit, NaN
// included; of a token that nobody wrote it may be anything.
#pragma once
#include "kernels/attention_group.h"
#include "kernels/transpose.h"

namespace octavo::OCTAVO_ISA {

// [D][16 tok] to [tok][D]
static void f32_values_of_keys(const uint8_t* k, int32_t v_dim, uint8_t* v) {
  const int64_t row = (int64_t)v_dim * 4;
  for (int d = 0; d < v_dim; d += 16, k += 16 * 64, v += 64) {
    const auto first = [&](int i) { return load_i(k + 2 * i * 64); };
    const auto second = [&](int i) { return load_i(k + (2 * i + 1) * 64); };
    transpose_pairs([&](int i) { return unpack_low(first(i), second(i)); },
                    [&](int j) { return v + (j / 2 * 4 + j % 2) * row; });
    transpose_pairs([&](int i) { return unpack_high(first(i), second(i)); },
                    [&](int j) { return v + (j / 2 * 4 + j % 2 + 2) * row; });
  }
}

// [D/2][16 tok][2 d] to [tok/2][D/16][16 d][2 tok]
static void bf16_values_of_keys(const uint8_t* k, int32_t v_dim, uint8_t* v) {
  const int64_t row = (int64_t)v_dim * 4;
  for (int d = 0; d < v_dim; d += 16, k += 8 * 64, v += 64)
    transpose_pairs([&](int i) { return swap_middles(load_i(k + i * 64)); },
                    [&](int j) { return v + j * row; });
}

// `units` of a tile whose K has been found; of a tile that has no V of its own `room` takes it.
static void make_values(const KVLayout* l, Units units, TileAddresses* at, uint8_t* room) {
  if (!l->v_aliases_k) return;
  const int64_t unit = kKVUnit * kv_row_bytes(l->v_format, l->v_dim);
  const auto make = l->v_format == KV_F32 ? f32_values_of_keys : bf16_values_of_keys;
  for (int s = units.begin; s < units.end; s++) {
    make(at->k[s], l->v_dim, room + s * unit);
    at->v[s] = room + s * unit;
  }
}

}  // namespace octavo::OCTAVO_ISA
