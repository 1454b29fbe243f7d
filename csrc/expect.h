// expect.h: what is not as expected is a std::invalid_argument, in Python a ValueError: "what:
// expected this, got that".
#pragma once
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

namespace octavo {

inline std::string text_of(std::string_view text) { return std::string(text); }
template <class Number>
  requires std::is_arithmetic_v<Number>
std::string text_of(Number value) {
  return std::to_string(value);
}

template <class Expected, class Got>
[[noreturn]] void refuse(std::string_view what, const Expected& expected, const Got& got) {
  throw std::invalid_argument(std::string(what) + ": expected " + text_of(expected) + ", got " +
                              text_of(got));
}
template <class Expected, class Got>
void expect(bool holds, std::string_view what, const Expected& expected, const Got& got) {
  if (!holds) refuse(what, expected, got);
}
inline void same(std::string_view what, int64_t expected, int64_t got) {
  if (expected != got) refuse(what, expected, got);
}
inline void within(std::string_view what, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high)
    refuse(what, std::to_string(low) + " to " + std::to_string(high), value);
}
inline void below(std::string_view what, int64_t value, int64_t end) {
  within(what, value, 0, end - 1);
}

}  // namespace octavo
