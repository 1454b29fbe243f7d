// tiles/attention_bytes.h: one chunk of int8 KV for a group of rows, its products in tiles.
//
// Sums of bytes are whole numbers, the same whatever multiplies them, so that bits are those of
// kernels/attention_dots.h, which says what they are.
#pragma once
#include "kernels/attention_softmax.h"
#include "kernels/tiles/attention_scores.h"

namespace octavo::OCTAVO_ISA {

using Bytes = KV<KV_INT8>;

// A row of packed q: its bytes, -128 times their sum, their scale.
constexpr int64_t packed_row_bytes(int k_dim) { return k_dim + 16; }

static void pack_row(const float* q, int k_dim, uint8_t* out) {
  Bytes::pack_q(q, k_dim, 1, 0, out);
}

static void begin_group(Group* group, const AttentionArgs* a, int row0, int begin, int count,
                        uint8_t* q, float* o) {
  begin_passes<pack_row>(group, a, row0, begin, count, q, packed_row_bytes(a->layout->k_dim), o);
}

// From sums to scores, in place.
static void scale_scores(const PackedQ& q, const TileAddresses& at, Units units, int rows,
                         Tile* tile) {
  for (int i = 0; i < rows; i++) {
    const uint8_t* behind = q.rows + i * q.stride + q.bytes;
    int32_t bias;
    float q_scale;
    __builtin_memcpy(&bias, behind, 4);
    __builtin_memcpy(&q_scale, behind + 4, 4);
    for (int s = units.begin; s < units.end; s++) {
      float* score = tile->score[i] + s * 16;
      const f32x16 k_scale = load_f((const float*)(at.k[s] + (int64_t)q.bytes * 16));
      const f32x16 sum = to_float(add_i(load_i(score), set1_i(bias)));
      store_f(score, mul(mul(sum, k_scale), set1_f(q_scale)));
    }
  }
}

// The V of a tile of KV as digits lie: of each 16 d the four tokens of quad j of unit s are row
// 4 * j + s. In place of a unit that nobody sees, whose digits are 0, another one.
static void gather_values(const TileAddresses& at, Units units, int v_dim, uint8_t* room) {
  const int64_t stride = (int64_t)v_dim * 4;
  for (int s = 0; s < 4; s++) {
    const int seen = most(least(s, units.end - 1), units.begin);
    for (int j = 0; j < 4; j++)
      for (int d = 0; d < v_dim; d += 16) {
        const int64_t line = j * stride + d * 4;
        store_i(room + d * 64 + (4 * j + s) * 64, load_i(at.v[seen] + line));
        if (s == seen && at.ahead) __builtin_prefetch(at.next_v[s] + line, 0, 2);
      }
  }
}

// A row's weights times the scales of V's tokens, in place; returns 16 of their tops.
OCTAVO_INLINE f32x16 scale_weights(const f32x16 (&v_scale)[4], float* p) {
  f32x16 top = zero_f();
#pragma GCC unroll 4
  for (int s = 0; s < 4; s++) {
    const f32x16 w = max(mul(load_f(p + s * 16), v_scale[s]), zero_f());
    store_f(p + s * 16, min(w, set1_f(__FLT_MAX__)));  // so that it is 0 times an inverse of 0
    top = max(w, top);
  }
  return top;
}

// A row's scaled weights become digits, in place; returns 16 sums of W.
OCTAVO_INLINE f32x16 round_weights(float inverse, uint32_t* row) {
  i32x16 whole[4], sum = zero_i();
#pragma GCC unroll 4
  for (int s = 0; s < 4; s++) {
    whole[s] = to_int(mul(load_f((const float*)row + s * 16), set1_f(inverse)));
    sum = add_i(sum, whole[s]);
  }
  store_digits(whole, (Digits*)row);
  return to_float(sum);  // exact, as are their sums: at most 64 * 32512
}

// What to_digits makes of each row, to the bit, for many rows of a whole tile: what is found once a
// row is found for all in one vector.
static void rows_to_digits(Addresses v, int v_dim, int rows, uint32_t (*p)[kTile]) {
  alignas(64) float part[kPassRows][16], inverse[16], scale[16], bias[16];
  f32x16 v_scale[4];
#pragma GCC unroll 4
  for (int s = 0; s < 4; s++) v_scale[s] = load_f((const float*)(v[s] + (int64_t)16 * v_dim));
  for (int i = 0; i < rows; i++) store_f(part[i], scale_weights(v_scale, (float*)p[i]));
  const f32x16 amax = max_of_each(part, rows), most_digits = set1_f(kMostDigits);
  const mask16 finite = lt(amax, set1_f(__builtin_inff())), none = lt(amax, set1_f(kLeastWeight));
  store_f(inverse, select(none, zero_f(), div(most_digits, amax)));  // 0 of an infinity, too
  store_f(scale, select(finite, div(amax, most_digits), set1_f(__builtin_nanf(""))));
  for (int i = 0; i < rows; i++) store_f(part[i], round_weights(inverse[i], p[i]));
  const f32x16 sums = join_lanes(part, rows, [](f32x16 x, f32x16 y) { return add(x, y); });
  store_f(bias, mul(sums, set1_f(-128.0f)));
  for (int i = 0; i < rows; i++) {
    auto* digits = (Digits*)p[i];
    digits->bias = (int32_t)bias[i];
    digits->scale = scale[i];
  }
}

static void make_all_digits(Addresses v, Units units, int v_dim, int rows, Tile* tile) {
  if (rows >= kManyRows && units.begin == 0 && units.end == 4)
    return rows_to_digits(v, v_dim, rows, tile->p);
  for (int i = 0; i < rows; i++) to_digits(v, units.begin, units.end, v_dim, tile->p[i]);
}

struct alignas(64) Sums {  // of a pass, at 64 d
  int32_t high[kPassRows][64], low[kPassRows][64];
};

template <int D>
OCTAVO_INLINE void multiply_panel(Tiles& t, const uint8_t* room, int d, int v_dim, int32_t* sums) {
  if (d + D * 16 >= v_dim) return;
  t.template zero<D>();
  t.template load<5>(room + (int64_t)(d + D * 16) * 64, 64);
  t.template dot_s8u8<D, 4, 5>();
  t.template store<D>(sums + D * 16, 64 * 4);
}
static void multiply_digit(Tiles& t, const int8_t* digit, const uint8_t* room, int d, int v_dim,
                           int32_t (*sums)[64]) {
  t.load<4>(digit, sizeof(Digits));
  multiply_panel<0>(t, room, d, v_dim, sums[0]);
  multiply_panel<1>(t, room, d, v_dim, sums[0]);
  multiply_panel<2>(t, room, d, v_dim, sums[0]);
  multiply_panel<3>(t, room, d, v_dim, sums[0]);
}

static void add_values(Tiles& t, const Pass* pass, const Tile& tile, const uint8_t* room,
                       int v_dim) {
  const auto* digits = (const Digits*)tile.p;
  Sums sums;
  for (int d = 0; d < v_dim; d += 64) {
    multiply_digit(t, digits->high, room, d, v_dim, sums.high);
    multiply_digit(t, digits->low, room, d, v_dim, sums.low);
    for (int i = 0; i < pass->kernels->rows; i++) {
      const i32x16 bias = set1_i(digits[i].bias);
      const f32x16 scale = set1_f(digits[i].scale), alpha = set1_f(tile.alpha[i]);
      float* o = pass->o + (int64_t)i * v_dim + d;
      for (int at = 0; at < least(v_dim - d, 64); at += 16) {
        const i32x16 high = add_i(shift_left<8>(load_i(sums.high[i] + at)), bias);
        const i32x16 sum = add_i(high, load_i(sums.low[i] + at));
        store_f(o + at, fma(to_float(sum), scale, mul(load_f(o + at), alpha)));
      }
    }
  }
}

// Does what that of kernels/attention_walk.h does: the state of every row over one chunk.
static void walk_chunk(Group* group, const AttentionArgs* a, int kv_head, int chunk,
                       int prefetch_end) {
  const int k_dim = a->layout->k_dim, v_dim = a->layout->v_dim;
  const bool capped = a->softcap > 0.0f;
  const float c = (capped ? a->softcap : a->scale) * 1.44269504f;
  for (int i = 0; i < group->count; i++) clear_pass(group->passes + i, v_dim);
  Tile work;
  alignas(64) uint8_t room[kAttentionMaxDim * 64];
  Tiles t(shapes_for(group->passes[0].kernels->rows, k_dim));
  const auto ready = [&](Units units, const TileAddresses* at) {
    gather_values(*at, units, v_dim, room);
  };
  const auto take = [&](Pass* pass, const void* pass_q, const TileAddresses& at, auto see,
                        int tile) {
    const int rows = pass->kernels->rows;
    const Units units = see(pass, &work, tile);
    const PackedQ q{(const uint8_t*)pass_q, packed_row_bytes(k_dim), k_dim};
    multiply_scores<ByteDots>(t, at, units, q);
    store_scores(t, units, &work);
    scale_scores(q, at, units, rows, &work);
    if (capped) cap_scores(pass, &work, units.begin, units.end, a->scale / a->softcap);
    if (a->slopes != nullptr) add_slopes(pass, &work, units.begin, units.end, a);
    tile_max(pass, &work, units.begin, units.end, c);
    tile_weights<Bytes>(pass, &work, units.begin, units.end, c);
    make_all_digits(at.v, units, v_dim, rows, &work);
    add_values(t, pass, work, room, v_dim);
  };
  walk_tiles(group, a, kv_head, chunk, prefetch_end, ready, take);
  for (int i = 0; i < group->count; i++) finish_pass(group->passes + i);
}

}  // namespace octavo::OCTAVO_ISA
