// What this machine can do at best, on all threads of a pool: the figures that benchmarks divide
// by.
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "bind/bindings.h"
#include "kernels/matmul.h"
#include "thread_pool.h"

namespace octavo {
namespace {

using Bytes = Array<const uint8_t, 1>;

constexpr int64_t kReadStep = 512;  // read_sum's unit

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double read_bandwidth(const std::string& isa, ThreadPool& pool, const Bytes& data, int repeats) {
  struct Context {
    const KernelTable* table;
    const uint8_t* data;
    int64_t slice;
    int repeats;
  };
  Context c{&table_for(isa), data.data(),
            (int64_t)data.shape(0) / pool.size() / kReadStep * kReadStep, repeats};
  if (c.slice < 1) throw nb::value_error("data: expected at least 512 bytes a thread");
  if (repeats < 1) throw nb::value_error("repeats: expected at least 1");
  const ReleasedGil released;
  const auto begin = std::chrono::steady_clock::now();
  pool.run([](void* context, int thread) noexcept {
    auto& c = *static_cast<Context*>(context);
    int64_t sink = 0;
    for (int i = 0; i < c.repeats; ++i)
      c.table->matmul->read_sum(c.data + thread * c.slice, c.slice, &sink);
  }, &c);
  return (double)c.slice * pool.size() * repeats / seconds_since(begin);
}

// Operations per second of `spin`, which does `ops` of them an iteration, on every thread.
double peak(ThreadPool& pool, void (*spin)(int64_t, int64_t*), int64_t iterations, int64_t ops) {
  struct Context {
    void (*spin)(int64_t, int64_t*);
    int64_t iterations;
  };
  Context c{spin, iterations};
  if (iterations < 1) throw nb::value_error("iterations: expected at least 1");
  const ReleasedGil released;
  const auto begin = std::chrono::steady_clock::now();
  pool.run([](void* context, int) noexcept {
    auto& c = *static_cast<Context*>(context);
    int64_t sink = 1;
    c.spin(c.iterations, &sink);
  }, &c);
  return (double)iterations * ops * pool.size() / seconds_since(begin);
}

double integer_peak(const std::string& isa, ThreadPool& pool, int64_t iterations) {
  return peak(pool, table_for(isa).matmul->spin_dot, iterations, kSpinIntOps);
}

double float_peak(const std::string& isa, ThreadPool& pool, int64_t iterations) {
  return peak(pool, table_for(isa).matmul->spin_fma, iterations, kSpinFloatOps);
}

std::optional<double> bf16_peak(const std::string& isa, ThreadPool& pool, int64_t iterations) {
  const auto spin = table_for(isa).matmul->spin_bf16;
  if (spin == nullptr) return std::nullopt;
  return peak(pool, spin, iterations, kSpinBf16Ops);
}

}  // namespace

void bind_probe(nb::module_& m) {
  m.def(
      "read_bandwidth", &read_bandwidth, "isa"_a, "pool"_a, "data"_a.noconvert(), "repeats"_a,
      "Bytes per second at which the pool's threads read `data`, each a slice of its own (benchmarks only).");
  m.def(
      "integer_peak", &integer_peak, "isa"_a, "pool"_a, "iterations"_a,
      "int8 operations per second of the pool's threads together, in registers (benchmarks only).");
  m.def("float_peak", &float_peak, "isa"_a, "pool"_a, "iterations"_a,
        "The same of float32 multiply-adds (benchmarks only).");
  m.def("bf16_peak", &bf16_peak, "isa"_a, "pool"_a, "iterations"_a,
        "The same of bf16 dots; None where the level has no such instruction (benchmarks only).");
}

}  // namespace octavo
