// Python bindings of the native core: each file of bind/ does types in, call, nothing else.
#include "bind/bindings.h"

NB_MODULE(_native, m) {
  // Objects that a daemon thread holds at the end of the process are no leak.
  nanobind::set_leak_warnings(false);
  m.doc() =
      "Octavo's native core: kernels, packed weights, KV pages and the interpreter that runs programs.";
  octavo::bind_dispatch(m);
  octavo::bind_matmul(m);
  octavo::bind_attention(m);
  octavo::bind_rows(m);
  octavo::bind_probe(m);
  octavo::bind_thread_pool(m);
  octavo::bind_program(m);
  octavo::bind_strings(m);
}
