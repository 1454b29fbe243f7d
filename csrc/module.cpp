// Python bindings of the native core: types in, call, nothing else.
#include <nanobind/nanobind.h>

namespace nb = nanobind;

NB_MODULE(_native, m) {
    m.doc() = "Octavo's native core";
}
