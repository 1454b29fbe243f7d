// matmul_gated.cpp: int8 rows through gate and up at once, and activation(gate) * up into the
// packed rows of the matmul after it: a sum goes from the kernel's registers to L1 and no further.
//
// The kernels are those of matmul_integer.cpp, a panel of gate and one of up as the two panels of a
// unit.
#include "kernels/activations.h"
#include "kernels/matmul_parts.h"
#include "kernels/rows.h"

namespace octavo::OCTAVO_ISA {

#if OCTAVO_PACKS_TILES

constexpr int kPair = 2;  // panels of a matrix that make a group of the rows after it

// sums: [panel][gate, up][token][16], as of units of two panels; out: [token][32].
template <class Kind>
static __attribute__((noinline)) void gate_tile(const float* sums, int tokens, float* out) {
  for (int r = 0; r < kPair; ++r) {
    const float* gate = sums + r * 2 * tokens * 16;
    for (int m = 0; m < tokens; ++m, gate += 16)
      store_f(out + m * kGroupColumns + r * 16,
              Kind::gated(load_f(gate), load_f(gate + tokens * 16)));
  }
}

static void gate_tile_by(int32_t activation, const float* sums, int tokens, float* out) {
  switch (activation) {
    case kSilu: return gate_tile<Silu>(sums, tokens, out);
    case kGelu: return gate_tile<Gelu>(sums, tokens, out);
    case kGeluTanh: return gate_tile<GeluTanh>(sums, tokens, out);
    case kRelu: return gate_tile<Relu>(sums, tokens, out);
    case kClampedGlu: return gate_tile<ClampedGlu>(sums, tokens, out);
  }
}

bool gated(const Weight* gate, const Weight* up, int32_t panel0, int32_t panel1, const Acts* a,
           int32_t tile0, int32_t tile1, int32_t activation, const Acts* out) {
  const int32_t rows = a->rows, format = gate->format;
  if (!is_integer_format(format) || up->format != format || a->kind != A32 || out->kind != A32 ||
      gate->rows % kGroupColumns != 0 || rows <= 2 || unpacks(format, tile1 - tile0))
    return false;
  alignas(64) float sums[kPair * 2 * kMaxTile * 16], columns[kMaxTile * kGroupColumns];
  const int64_t stride = gate->panel_stride,
                apart = (int64_t)((uintptr_t)up->data - (uintptr_t)gate->data);
  const int shares = tile1 - tile0 < 2 ? 1 : 2;
  for (int32_t panel = panel0; panel < panel1; panel += kPair) {
    for (int32_t tile = tile0; tile < tile1; ++tile) {
      const int32_t begin = tile_begin(rows, tile), size = tile_begin(rows, tile + 1) - begin,
                    share = tile - tile0;
      const int32_t* x = (const int32_t*)(a->data + begin * act_row_bytes(A32, a->cols));
      const TileFn run = integer_tile(format, 2, size, size);
      // The next panels come into L2 during the first tiles.
      const bool next = panel + kPair < gate->panels && share < shares;
      const Ahead ahead{kPair * stride + (share == 1 ? apart : 0), next ? 2 / shares : 0};
      for (int r = 0; r < kPair; ++r)
        run(gate->data + (panel + r) * stride, apart, a->cols / 32, x, size, ahead,
            sums + r * 2 * size * 16);
      gate_tile_by(activation, sums, size, columns);
      int32_t* group = (int32_t*)(out->data + begin * act_row_bytes(A32, out->cols)) +
                       (int64_t)panel / kPair * 12 * size;
      quantize_tile(columns, kGroupColumns, size, 1, group);
    }
  }
  return true;
}

#else

bool gated(const Weight*, const Weight*, int32_t, int32_t, const Acts*, int32_t, int32_t, int32_t,
           const Acts*) {
  return false;
}

#endif

}  // namespace octavo::OCTAVO_ISA
