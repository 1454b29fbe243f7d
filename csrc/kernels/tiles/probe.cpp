// tiles/probe.cpp: what tests call of the tile words. The tiles are other ones for each operand and
// word, so that a number that is mistaken shows.
#include "kernels/tiles/probe.h"

#include "kernels/tiles/words.h"

namespace octavo::OCTAVO_ISA {

template <int C, int A, int B> OCTAVO_INLINE TileShapes shapes_of(const TileOperands& o) {
  TileShapes shapes{};
  shapes.rows[C] = shapes.rows[A] = (uint8_t)o.rows;
  shapes.rows[B] = (uint8_t)o.steps;
  shapes.bytes[C] = shapes.bytes[B] = (uint16_t)(4 * o.columns);
  shapes.bytes[A] = (uint16_t)(4 * o.steps);
  return shapes;
}

// C += A B by a word of these tiles, after their loads and before the store.
template <int C, int A, int B, class Word>
OCTAVO_INLINE void run_word(const TileOperands& o, Word word) {
  Tiles t(shapes_of<C, A, B>(o));
  t.load<C>(o.c, o.c_stride);
  t.load<A>(o.a, o.a_stride);
  t.load<B>(o.b, o.b_stride);
  word(t);
  t.store<C>(o.c, o.c_stride);
}

static void dot_s8(const TileOperands& o) {
  run_word<0, 5, 6>(o, [](Tiles& t) { t.dot_s8<0, 5, 6>(); });
}
static void dot_s8u8(const TileOperands& o) {
  run_word<2, 7, 3>(o, [](Tiles& t) { t.dot_s8u8<2, 7, 3>(); });
}
static void dot_bf16(const TileOperands& o) {
  run_word<7, 1, 4>(o, [](Tiles& t) { t.dot_bf16<7, 1, 4>(); });
}

static void zero(const TileOperands& o) {
  Tiles t(shapes_of<3, 2, 1>(o));
  t.load<3>(o.c, o.c_stride);
  t.zero<3>();
  t.store<3>(o.c, o.c_stride);
}

const TileProbe* tile_probe() {
  static constexpr TileProbe probe{dot_s8, dot_s8u8, dot_bf16, zero};
  return &probe;
}

}  // namespace octavo::OCTAVO_ISA
