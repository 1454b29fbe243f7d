// kv_write.h: one token's K and V of one kv head into its page, each in its own format; no V where
// it is read from K.
#pragma once
#include "kernels/kv_traits.h"

namespace octavo::OCTAVO_ISA {

struct RowWriters {  // indexed by KVFormat
  void (*k[kKVFormats])(uint8_t* unit, int32_t slot, int32_t dim, const float* k);
  void (*v[kKVFormats])(uint8_t* unit, int32_t slot, int32_t dim, const float* v);
};
template <int32_t... kFormats> constexpr RowWriters row_writers(KVFormats<kFormats...>) {
  return {{KV<kFormats>::write_k...}, {KV<kFormats>::write_v...}};
}
static constexpr RowWriters kWriters = row_writers(EveryKVFormat{});

static void write_kv(const KVLayout* l, uint8_t* pages, int32_t block, int32_t slot, int32_t layer,
                     int32_t kv_head, const float* k, const float* v) {
  const KVUnit unit = kv_unit(l, block, layer, kv_head, slot);
  kWriters.k[l->k_format](pages + unit.k, slot % kKVUnit, l->k_dim, k);
  if (l->v_aliases_k) return;
  kWriters.v[l->v_format](pages + unit.v, slot % kKVUnit, l->v_dim, v);
}

}  // namespace octavo::OCTAVO_ISA
