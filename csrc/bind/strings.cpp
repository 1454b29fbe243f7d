// Arrays of strings as GGUF files have them, in Python: vocabularies hold 10^5, and a loop in
// Python takes most of the time that reading a header does.
#include <cstdint>
#include <cstring>

#include "bind/bindings.h"

namespace octavo {
namespace {

using Bytes = Array<const uint8_t, 1>;

// Reads no more than `count` strings, each its length in 8 bytes and then UTF-8, and stops before
// the first that does not end in `data` or is not UTF-8. Returns them, and where they end.
nb::tuple read_strings(const Bytes& data, int64_t begin, int64_t count) {
  const uint64_t size = data.shape(0);
  expect(begin >= 0 && (uint64_t)begin <= size, "begin", "a place in data", begin);
  uint64_t at = (uint64_t)begin;
  nb::list found;
  for (int64_t i = 0; i < count && size - at >= 8; i++) {
    uint64_t length;
    std::memcpy(&length, data.data() + at, 8);
    if (length > size - at - 8) break;
    const char* text = (const char*)data.data() + at + 8;
    PyObject* string = PyUnicode_DecodeUTF8(text, (Py_ssize_t)length, nullptr);
    if (string == nullptr) {
      if (!PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) throw nb::python_error();
      PyErr_Clear();
      break;
    }
    found.append(nb::steal(string));
    at += 8 + length;
  }
  return nb::make_tuple(found, at);
}

}  // namespace

void bind_strings(nb::module_& m) {
  m.def("read_strings", &read_strings, "data"_a.noconvert(), "begin"_a, "count"_a,
        "The strings of a GGUF array from `begin` on, at most `count`, and where they end: before "
        "the first that data does not hold whole, or that is not UTF-8.");
}

}  // namespace octavo
