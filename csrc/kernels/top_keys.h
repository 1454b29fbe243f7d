// top_keys.h: tokens ordered by (logit, lowest token first) as one 64-bit key, and where to cut a
// set of them.
//
// Keys of different tokens differ, so every cut is exact and does not depend on the order in which
// keys arrive.
#pragma once
#include "kernels/simd.h"

namespace octavo::OCTAVO_ISA {

// Larger for the larger logit (not NaN; -0 equals +0), then for the lower token.
OCTAVO_INLINE uint64_t top_key(float logit, int32_t token) {
  const float value = logit + 0.0f;
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  const uint32_t ordered = bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
  return (uint64_t)ordered << 32 | (uint32_t)~token;
}
OCTAVO_INLINE int32_t key_token(uint64_t key) { return (int32_t)~(uint32_t)key; }
OCTAVO_INLINE float key_logit(uint64_t key) {
  const uint32_t ordered = (uint32_t)(key >> 32),
                 bits = ordered ^ (ordered >> 31 ? 0x80000000u : 0xffffffffu);
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

OCTAVO_INLINE void swap_keys(uint64_t* a, uint64_t* b) {
  const uint64_t t = *a;
  *a = *b;
  *b = t;
}

// Puts the median of the first, middle and last key at `low`.
OCTAVO_INLINE void choose_pivot(uint64_t* keys, int32_t low, int32_t high) {
  const int32_t middle = low + (high - low) / 2, last = high - 1;
  if (keys[middle] > keys[last]) swap_keys(keys + middle, keys + last);
  if (keys[low] > keys[last]) swap_keys(keys + low, keys + last);
  if (keys[low] < keys[middle]) swap_keys(keys + low, keys + middle);
}

// `weights` is by token; null counts 1 for each.
OCTAVO_INLINE int64_t key_weight(uint64_t key, const int32_t* weights) {
  return weights ? weights[key_token(key)] : 1;
}

// The largest key such that the keys from it upwards weigh `target` or more; the smallest key if
// all weigh less. count >= 1. Reorders the keys, as quickselect does.
static __attribute__((noinline)) uint64_t cut_key(uint64_t* keys, int32_t count,
                                                  const int32_t* weights, int64_t target) {
  int32_t low = 0, high = count;
  while (high - low > 1) {
    choose_pivot(keys, low, high);
    const uint64_t pivot = keys[low];
    int32_t above = low;  // keys[low + 1 .. above] are larger than the pivot
    int64_t weight = 0;
    for (int32_t i = low + 1; i < high; i++) {
      if (keys[i] < pivot) continue;
      weight += key_weight(keys[i], weights);
      swap_keys(keys + ++above, keys + i);
    }
    swap_keys(keys + low, keys + above);
    if (weight >= target) {
      high = above;
      continue;
    }
    target -= weight + key_weight(pivot, weights);
    if (target <= 0 || above + 1 == high) return pivot;
    low = above + 1;
  }
  return keys[low];
}

}  // namespace octavo::OCTAVO_ISA
