// bindings.h: what every bind_*.cpp begins with: the level's table by name.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <string>

#include "dispatch.h"

namespace octavo {

namespace nb = nanobind;
using namespace nb::literals;

inline const KernelTable& table_for(const std::string& isa) {
  if (const KernelTable* table = kernel_table(isa.c_str())) return *table;
  throw nb::value_error(("isa: expected one of " + isa_list() + ", got " + isa).c_str());
}

void bind_dispatch(nb::module_& m);
void bind_matmul(nb::module_& m);
void bind_attention(nb::module_& m);
void bind_rows(nb::module_& m);
void bind_probe(nb::module_& m);
void bind_thread_pool(nb::module_& m);
void bind_program(nb::module_& m);

}  // namespace octavo
