// bindings.h: what every file of bind/ begins with: arrays, the level's table by name, work without
// the GIL.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <unistd.h>

#include <cmath>
#include <string>

#include "dispatch.h"
#include "expect.h"

namespace octavo {

namespace nb = nanobind;
using namespace nb::literals;

template <class T, int N>
using Array = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;

inline const KernelTable& table_for(const std::string& isa) {
  if (const KernelTable* table = kernel_table(isa.c_str())) return *table;
  refuse("isa", "one of " + isa_list(), isa);
}

// A slope times any position is far below what attention takes for no score.
inline void check_slopes(const Array<const float, 1>& slopes) {
  for (size_t i = 0; i < slopes.size(); ++i)
    if (!(std::fabs(slopes.data()[i]) < 1e6f))
      throw nb::value_error("slopes: expected numbers between -1e6 and 1e6");
}

// Without the GIL while it lives, as nb::gil_scoped_release, but for the end of the process: a
// daemon thread that wants the GIL back from an interpreter that has ended is taken down by Python
// (before 3.14) with pthread_exit, whose unwinding may not leave a destructor: the process would
// abort. Such a thread stops here; the process ends without it.
class ReleasedGil {
 public:
  ReleasedGil() : state_(PyEval_SaveThread()) {}
  ~ReleasedGil() {
    try {
      PyEval_RestoreThread(state_);
    } catch (...) {  // only pthread_exit's unwinding comes through C
      for (;;) pause();
    }
  }
  ReleasedGil(const ReleasedGil&) = delete;
  ReleasedGil& operator=(const ReleasedGil&) = delete;

 private:
  PyThreadState* state_;
};

void bind_dispatch(nb::module_& m);
void bind_matmul(nb::module_& m);
void bind_attention(nb::module_& m);
void bind_rows(nb::module_& m);
void bind_probe(nb::module_& m);
void bind_thread_pool(nb::module_& m);
void bind_program(nb::module_& m);
void bind_strings(nb::module_& m);

}  // namespace octavo
