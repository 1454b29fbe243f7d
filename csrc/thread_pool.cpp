#include "thread_pool.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <fstream>
#include <set>
#include <stdexcept>
#include <string>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace octavo {
namespace {

// A barrier is short; between two steps of a stream the caller samples and schedules, which a
// sleeping worker would make longer by its wake-up. Where threads take turns on a CPU, one that
// spins keeps that from running which it waits for.
constexpr std::chrono::microseconds kBarrierSpin{50};
constexpr std::chrono::microseconds kRunSpin{300};
constexpr std::chrono::microseconds kNoSpin{0};
constexpr int kPolls = 32;   // between two looks at the clock
constexpr int kYields = 64;  // lets a crowded machine run the thread that we wait for

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

void futex_wait(std::atomic<uint32_t>& word, uint32_t seen) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr,
          0);
}

void futex_wake_all(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE_PRIVATE, INT_MAX, nullptr,
          nullptr, 0);
}

int cpus_of_cgroup() {  // ceil of the quota, INT_MAX where there is none
  std::string path = "/sys/fs/cgroup";
  std::ifstream self("/proc/self/cgroup");
  for (std::string line; std::getline(self, line);)
    if (line.rfind("0::", 0) == 0 && line.size() > 4) path += line.substr(3);
  int cpus = INT_MAX;
  for (;;) {  // every ancestor's limit holds too
    std::ifstream file(path + "/cpu.max");
    std::string quota;
    double period = 0;
    if (file >> quota >> period && quota != "max" && period > 0)
      cpus = std::min(cpus, std::max(1, (int)(std::stod(quota) / period + 0.999)));
    if (path.size() <= sizeof("/sys/fs/cgroup") - 1) break;
    path.resize(path.rfind('/'));
  }
  std::ifstream quota1("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"),
      period1("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  double quota = 0, period = 0;
  if (quota1 >> quota && period1 >> period && quota > 0 && period > 0)
    cpus = std::min(cpus, std::max(1, (int)(quota / period + 0.999)));
  return cpus;
}

int cpus_of_affinity() {
  cpu_set_t mask;
  if (sched_getaffinity(0, sizeof mask, &mask) != 0)
    return std::max(1u, std::thread::hardware_concurrency());
  return CPU_COUNT(&mask);
}

int cores_of_affinity() {  // SMT siblings count once
  cpu_set_t mask;
  if (sched_getaffinity(0, sizeof mask, &mask) != 0)
    return std::max(1u, std::thread::hardware_concurrency());
  std::set<std::string> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &mask)) continue;
    std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) +
                       "/topology/thread_siblings_list");
    std::string siblings;
    cores.insert(file >> siblings ? siblings : "cpu" + std::to_string(cpu));
  }
  return std::max<int>(1, (int)cores.size());
}

}  // namespace

void ThreadPool::Flag::wait_while(uint32_t seen, std::chrono::microseconds spin) {
  const auto poll = [&] {
    for (int i = 0; i < kPolls; ++i) {
      if (value.load(std::memory_order_acquire) != seen) return true;
      relax();
    }
    return false;
  };
  if (poll()) return;
  for (const auto end = std::chrono::steady_clock::now() + spin;
       std::chrono::steady_clock::now() < end;)
    if (poll()) return;
  for (int i = 0; i < kYields; ++i) {
    if (value.load(std::memory_order_acquire) != seen) return;
    sched_yield();
  }
  // Sequentially consistent with advance(): it sees this sleeper, or the futex sees its new value.
  sleepers.fetch_add(1);
  while (value.load() == seen) futex_wait(value, seen);
  sleepers.fetch_sub(1);
}

void ThreadPool::Flag::advance() {
  value.fetch_add(1);
  if (sleepers.load() != 0) futex_wake_all(value);
}

ThreadPool::ThreadPool(int threads)
    : size_(threads), has_cpus_(threads <= std::min(cpus_of_affinity(), cpus_of_cgroup())) {
  if (threads < 1)
    throw std::invalid_argument("threads: expected at least 1, got " + std::to_string(threads));
  cpus_ = std::make_unique<std::atomic<int>[]>(threads);
}

ThreadPool::~ThreadPool() {
  if (forked()) {
    // The workers are the parent's, and a new thread of this process may have the handle of one:
    // touch none of them.
    new std::vector<std::thread>(std::move(workers_));
    return;
  }
  stop_workers();
}

bool ThreadPool::forked() const {
  const int owner = owner_pid_.load(std::memory_order_relaxed);
  return owner != 0 && owner != getpid();
}

void ThreadPool::refuse_in_child() const {
  if (forked())
    throw std::runtime_error("this engine was made before a fork: make a new one in the child");
}

void ThreadPool::start_workers() {
  owner_pid_.store(getpid(), std::memory_order_relaxed);
  workers_.reserve(size_ - 1);
  try {
    for (int thread = 1; thread < size_; ++thread)
      workers_.emplace_back(&ThreadPool::work, this, thread);
  } catch (...) {  // too few workers would wait for the others for ever
    stop_workers();
    throw;
  }
}

void ThreadPool::stop_workers() {
  stop_.store(true);
  runs_.advance();
  for (auto& worker : workers_) worker.join();
  workers_.clear();
  stop_.store(false);
  runs_.value.store(0);
}

void ThreadPool::run(Task task, void* context) {
  refuse_in_child();  // before the lock: a run of the parent may have held it at the fork
  const std::lock_guard<std::mutex> lock(run_mutex_);
  if (size_ == 1) return task(context, 0);
  if (workers_.empty()) start_workers();
  task_ = task;
  context_ = context;
  cpus_[0].store(sched_getcpu(), std::memory_order_relaxed);
  runs_.advance();
  task(context, 0);
  barrier();
}

void ThreadPool::work(int thread) {
  // Workers start at run 0: the first run may begin before this line, and must not be missed.
  for (uint32_t seen = 0;; ++seen) {
    runs_.wait_while(seen, has_cpus_ ? kRunSpin : kNoSpin);
    if (stop_.load()) return;
    leave_shared_cpu(thread);
    task_(context_, thread);
    barrier();
  }
}

// Two threads that take turns in waiting for each other look to the system like one that always
// runs: it may leave them on one CPU for seconds, with another idle. So a worker that begins a run
// where a thread before it does goes elsewhere, and is then free to be moved again.
void ThreadPool::leave_shared_cpu(int thread) {
  const auto at = [this](int i) { return cpus_[i].load(std::memory_order_relaxed); };
  const int here = sched_getcpu();
  cpus_[thread].store(here, std::memory_order_relaxed);
  bool is_shared = false;
  for (int i = 0; i < thread; ++i) is_shared |= at(i) == here;
  cpu_set_t allowed;
  if (!is_shared || sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  cpu_set_t others = allowed;
  for (int i = 0; i < thread; ++i)
    if (at(i) >= 0 && at(i) < CPU_SETSIZE) CPU_CLR(at(i), &others);
  if (CPU_COUNT(&others) == 0 || sched_setaffinity(0, sizeof others, &others) != 0) return;
  sched_setaffinity(0, sizeof allowed, &allowed);
  cpus_[thread].store(sched_getcpu(), std::memory_order_relaxed);
}

void ThreadPool::barrier() {
  if (size_ == 1) return;
  const uint32_t seen = barriers_.value.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
    arrived_.store(0, std::memory_order_relaxed);  // published by advance()
    barriers_.advance();
  } else {
    barriers_.wait_while(seen, has_cpus_ ? kBarrierSpin : kNoSpin);
  }
}

int usable_cpus() { return std::min(cores_of_affinity(), cpus_of_cgroup()); }

}  // namespace octavo
