// Python's view of the ISA levels, and of the words of simd.h for tests.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>

#include "bind/bindings.h"
#include "dispatch.h"
#include "kernels/simd_probe.h"

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

std::vector<std::string> isa_names() {
  const std::vector<const char*> names = available_isas();
  return {names.begin(), names.end()};
}

}  // namespace

void bind_dispatch(nb::module_& m) {
  m.def("available_isas", &isa_names,
        "The ISA levels this build has and this machine runs, the best last.");
  m.def("default_isa", [] { return std::string(best_kernel_table()->name); },
        "The best level, or the one OCTAVO_ISA names; ValueError if that one is not available.");
  m.attr("KERNEL_VERSION") = kKernelVersion;
  m.def("arithmetic_class", [](const std::string& isa) {
    return std::string(table_for(isa).arithmetic);
  }, "isa"_a, "Levels of the same class give the same bits.");
  m.def("simd_word", &simd_word, "isa"_a, "word"_a, "out"_a.noconvert(), "a"_a.noconvert(),
        "b"_a.noconvert(), "c"_a.noconvert(),
        "Run one word of simd.h on vectors of 64 bytes (tests only).");
}

}  // namespace octavo
