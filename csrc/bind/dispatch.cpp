// Python's view of the ISA levels, and of the words of simd.h and tiles/words.h for tests.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>

#include "bind/bindings.h"
#include "dispatch.h"
#include "kernels/simd_probe.h"
#include "kernels/tiles/probe.h"

namespace octavo {
namespace {

using Vectors = nb::ndarray<const uint8_t, nb::shape<-1, 64>, nb::c_contig, nb::device::cpu>;
using VectorsOut = nb::ndarray<uint8_t, nb::shape<-1, 64>, nb::c_contig, nb::device::cpu>;

const ProbeWord& find_word(const SimdProbe& probe, const std::string& name) {
  for (int32_t i = 0; i < probe.count; i++) {
    if (name == probe.words[i].name) return probe.words[i];
  }
  throw nb::value_error(("word: no word named " + name + " in simd.h").c_str());
}

void simd_word(const std::string& isa, const std::string& word, VectorsOut out, Vectors a,
               Vectors b, Vectors c) {
  const ProbeWord& probe = find_word(*table_for(isa).probe, word);
  for (const Vectors* arg : {&a, &b, &c}) {
    if (arg->shape(0) != out.shape(0))
      throw nb::value_error("a, b, c: expected as many vectors as out");
  }
  const ReleasedGil released;
  for (size_t i = 0; i < out.shape(0); i++) {
    probe.run(a.data() + i * 64, b.data() + i * 64, c.data() + i * 64, out.data() + i * 64);
  }
}

// One word of tiles/words.h on a product of tiles; 32-bit words of any meaning.
using Tile = nb::ndarray<const uint32_t, nb::ndim<2>, nb::device::cpu>;
using TileOut = nb::ndarray<uint32_t, nb::ndim<2>, nb::device::cpu>;

template <class AnyTile>
int64_t tile_stride(const AnyTile& tile, const char* name, size_t rows, size_t columns) {
  expect(tile.shape(0) == rows && tile.shape(1) == columns && rows >= 1 && rows <= 16 &&
             columns >= 1 && columns <= 16,
         name, "C (M, N), A (M, K) and B (K, N), all 1..16",
         std::to_string(tile.shape(0)) + " x " + std::to_string(tile.shape(1)));
  expect(columns == 1 || tile.stride(1) == 1, name, "contiguous rows", tile.stride(1));
  return tile.stride(0) * 4;
}

void tile_word(const std::string& isa, const std::string& word, const TileOut& c, const Tile& a,
               const Tile& b) {
  const TileProbe* probe = table_for(isa).tiles;
  expect(probe != nullptr, "isa", "a level with tiles", isa);
  const size_t rows = c.shape(0), columns = c.shape(1), steps = a.shape(1);
  const TileOperands o{(int)rows,
                       (int)columns,
                       (int)steps,
                       c.data(),
                       a.data(),
                       b.data(),
                       tile_stride(c, "c", rows, columns),
                       tile_stride(a, "a", rows, steps),
                       tile_stride(b, "b", steps, columns)};
  if (word == "dot_s8") return probe->dot_s8(o);
  if (word == "dot_s8u8") return probe->dot_s8u8(o);
  if (word == "dot_bf16") return probe->dot_bf16(o);
  expect(word == "zero", "word", "dot_s8, dot_s8u8, dot_bf16 or zero", word);
  probe->zero(o);
}

std::vector<std::string> strings(const std::vector<const char*>& names) {
  return {names.begin(), names.end()};
}

}  // namespace

void bind_dispatch(nb::module_& m) {
  m.def("available_isas", [] { return strings(available_isas()); },
        "The ISA levels this build has and this machine runs, the best last.");
  m.def("plain_isas", [] { return strings(plain_isas()); },
        "Levels of plain code in place of instructions (tests only).");
  m.def("default_isa", [] { return std::string(best_kernel_table()->name); },
        "The best level, or the one OCTAVO_ISA names; ValueError if that one is not available.");
  m.attr("KERNEL_VERSION") = kKernelVersion;
  m.def("arithmetic_class", [](const std::string& isa) {
    return std::string(table_for(isa).arithmetic);
  }, "isa"_a, "Levels of the same class give the same bits.");
  m.def("simd_word", &simd_word, "isa"_a, "word"_a, "out"_a.noconvert(), "a"_a.noconvert(),
        "b"_a.noconvert(), "c"_a.noconvert(),
        "Run one word of simd.h on vectors of 64 bytes (tests only).");
  m.def("tile_word", &tile_word, "isa"_a, "word"_a, "c"_a.noconvert(), "a"_a.noconvert(),
        "b"_a.noconvert(), "Run one word of tiles/words.h, into c (tests only).");
}

}  // namespace octavo
