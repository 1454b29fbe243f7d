// thread_pool.h: a fixed team of threads that run one function together (SPMD). The only place that makes threads.
//
// The caller is thread 0. Workers spin for a short while after a run, then sleep in a futex: an idle pool costs no CPU.
// Knows nothing of programs or kernels.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace octavo {

class ThreadPool {
 public:
  using Task = void (*)(void* context, int thread);  // called once on every thread, thread in [0, size)

  explicit ThreadPool(int threads);  // throws std::invalid_argument if threads < 1
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return size_; }
  void run(Task task, void* context);  // returns when every thread has returned; one run at a time (others wait)
  void barrier();                      // inside a task: returns when all threads of the pool have called it

 private:
  struct alignas(128) Flag { std::atomic<uint32_t> value{0}; };

  void work(int thread);
  void start_workers();

  const int size_;
  int owner_pid_;
  std::mutex run_mutex_;
  std::vector<std::thread> workers_;
  Task task_ = nullptr;
  void* context_ = nullptr;
  bool stop_ = false;
  Flag epoch_;            // counts runs; workers wait for it to change
  Flag sleepers_;         // workers asleep in the futex of epoch_
  Flag finished_;         // workers done with the current run
  Flag barrier_count_;    // threads that have arrived
  Flag barrier_epoch_;    // counts barriers; waiting threads wait for it to change
};

int usable_cpus();  // CPUs this process may use: affinity mask and cgroup quota, at least 1

}  // namespace octavo
