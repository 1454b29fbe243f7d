// Python's view of the thread pool.
#include <nanobind/nanobind.h>

#include <vector>

#include "bind/bindings.h"
#include "thread_pool.h"

namespace octavo {

void bind_thread_pool(nb::module_& m) {
  m.def("usable_cpus", &usable_cpus,
        "Physical cores that affinity and cgroup quota allow, at least 1.");

  nb::class_<ThreadPool>(m, "ThreadPool",
                         "A team of threads that run a program together; asleep when idle.")
      .def(nb::init<int>(), "threads"_a)
      .def_prop_ro("size", &ThreadPool::size)
      .def("run_barriers",
           [](ThreadPool& pool, int64_t rounds) {
    // Each thread adds its number between barriers; a lost or early thread changes the sums. For
    // tests.
    struct Context {
      ThreadPool* pool;
      int64_t rounds;
      std::vector<int64_t> cells;
      int64_t wrong;
    };
    Context c{&pool, rounds, std::vector<int64_t>((size_t)pool.size() * 16), 0};
    const ReleasedGil released;
    pool.run([](void* context, int thread) noexcept {
      auto& c = *static_cast<Context*>(context);
      for (int64_t r = 1; r <= c.rounds; ++r) {
        c.cells[(size_t)thread * 16] = r;
        c.pool->barrier();
        if (thread == 0)
          for (int t = 0; t < c.pool->size(); ++t) c.wrong += c.cells[(size_t)t * 16] != r;
        c.pool->barrier();
      }
    }, &c);
    return c.wrong;
  }, "rounds"_a,
           "How often a thread was seen out of step in this many rounds: 0 if barriers hold.");
}

}  // namespace octavo
