// kv_write.h: one token's K and V of one kv head into its page (layouts: formats.h, KVType).
//
// bf16 is rounded to nearest even in integer arithmetic, the same bits at every level; NaN stays NaN.
#pragma once
#include "kernels/attention.h"
#include "kernels/simd.h"

namespace octavo::OCTAVO_ISA {

OCTAVO_INLINE uint16_t bf16_of(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fc0;
  return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static void write_k_bf16(uint8_t* head, int32_t slot, int32_t dim, const float* k) {
  uint16_t rounded[kAttentionMaxDim];
  for (int d = 0; d < dim; d++) rounded[d] = bf16_of(k[d]);
  uint8_t* out = head + (int64_t)(slot / 16) * 16 * dim * 2 + slot % 16 * 4;
  for (int d = 0; d < dim; d += 2) __builtin_memcpy(out + d / 2 * 64, rounded + d, 4);
}

// Two neighbouring tokens share 32-bit words here, and another thread may be writing the other one: 16-bit stores only.
static void write_v_bf16(uint8_t* head, int32_t slot, int32_t dim, const float* v) {
  uint16_t rounded[kAttentionMaxDim];
  for (int d = 0; d < dim; d++) rounded[d] = bf16_of(v[d]);
  uint8_t* out = head + (int64_t)(slot / 2) * dim * 4 + slot % 2 * 2;
  for (int d = 0; d < dim; d++) __builtin_memcpy(out + d * 4, rounded + d, 2);
}

static void write_k_f32(uint8_t* head, int32_t slot, int32_t dim, const float* k) {
  uint8_t* out = head + (int64_t)(slot / 16) * 16 * dim * 4 + slot % 16 * 4;
  for (int d = 0; d < dim; d++) __builtin_memcpy(out + d * 64, k + d, 4);
}

static void write_v_f32(uint8_t* head, int32_t slot, int32_t dim, const float* v) {
  __builtin_memcpy(head + (int64_t)slot * dim * 4, v, (size_t)dim * 4);
}

static void write_kv(const KVLayout* layout, uint8_t* pages, int32_t block, int32_t slot, int32_t layer,
                     int32_t kv_head, const float* k, const float* v) {
  uint8_t* page = pages + block * layout->block_stride + layer * layout->layer_stride;
  uint8_t* k_head = page + kv_head * layout->k_head_stride;
  uint8_t* v_head = page + layout->v_offset + kv_head * layout->v_head_stride;
  (layout->k_type == KV_BF16 ? write_k_bf16 : write_k_f32)(k_head, slot, layout->k_dim, k);
  (layout->v_type == KV_BF16 ? write_v_bf16 : write_v_f32)(v_head, slot, layout->v_dim, v);
}

}  // namespace octavo::OCTAVO_ISA
