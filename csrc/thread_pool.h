// thread_pool.h: a fixed team of threads that run one function together (SPMD). The only place that
// makes threads.
//
// The caller is thread 0. Workers spin for a short while after a run, then sleep in a futex: an
// idle pool costs no CPU. Knows nothing of programs or kernels.
#pragma once
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace octavo {

class ThreadPool {
 public:
  // Called once on every thread, thread in [0, size). One that threw would leave the others waiting
  // at a barrier.
  using Task = void (*)(void* context, int thread) noexcept;

  explicit ThreadPool(int threads);  // throws std::invalid_argument if threads < 1
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return size_; }
  void run(
      Task task,
      void* context);  // returns when every thread has returned; one run at a time (others wait)
  void barrier();      // inside a task: returns when all threads of the pool have called it
  void refuse_in_child()
      const;  // throws std::runtime_error if the process forked since the workers were started

 private:
  // A counter that threads wait on, alone on its cache lines (adjacent lines are prefetched in
  // pairs).
  struct alignas(128) Flag {
    std::atomic<uint32_t> value{0};
    std::atomic<uint32_t> sleepers{0};

    void wait_while(uint32_t seen,
                    std::chrono::microseconds spin);  // then yield, then sleep, until value differs
    void advance();                                   // value + 1, waking whoever sleeps
  };

  void work(int thread);
  void leave_shared_cpu(int thread);
  void start_workers();  // all or none
  void stop_workers();
  bool forked() const;

  const int size_;
  const bool has_cpus_;  // one for each thread, SMT siblings too
  std::atomic<int> owner_pid_{
      0};  // the process that started the workers; a forked child has none of them
  std::mutex run_mutex_;
  std::vector<std::thread> workers_;          // made at the first run
  std::unique_ptr<std::atomic<int>[]> cpus_;  // where each thread began the last run
  Task task_ = nullptr;
  void* context_ = nullptr;
  std::atomic<bool> stop_{false};
  Flag runs_;
  Flag barriers_;
  alignas(128) std::atomic<int> arrived_{0};
};

int usable_cpus();  // cores this process may use: affinity mask and cgroup quota, at least 1

}  // namespace octavo
