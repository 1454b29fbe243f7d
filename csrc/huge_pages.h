// huge_pages.h: a mapping of zeros from a huge page's boundary on, in huge pages where the system
// gives some.
//
// Best effort: without them everything works. What is never touched takes no memory; what is, takes
// it by the huge page.
#pragma once
#include <sys/mman.h>

#include <cstdint>
#include <new>

namespace octavo {

class HugePages {
 public:
  explicit HugePages(int64_t bytes) {  // throws std::bad_alloc
    // Whole huge pages only if the bytes come near to filling them: 200 KB stay 200 KB.
    const int64_t usable = round_up(bytes, bytes % kBytes > kBytes / 2 ? kBytes : 4096);
    mapping_bytes_ = usable + kBytes;
    void* mapping = mmap(nullptr, (size_t)mapping_bytes_, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED) throw std::bad_alloc();
    mapping_ = static_cast<uint8_t*>(mapping);
    data_ = mapping_ + (kBytes - (int64_t)((uintptr_t)mapping_ % kBytes)) % kBytes;
    madvise(data_, (size_t)usable, MADV_HUGEPAGE);
  }
  ~HugePages() { munmap(mapping_, (size_t)mapping_bytes_); }
  HugePages(const HugePages&) = delete;
  HugePages& operator=(const HugePages&) = delete;

  uint8_t* data() const { return data_; }

 private:
  static constexpr int64_t kBytes = 2 << 20;  // of a huge page
  static int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

  uint8_t *mapping_, *data_;
  int64_t mapping_bytes_;
};

}  // namespace octavo
