// log.h: the natural logarithm of a double that is not negative, the only one of the core: the same
// bits whatever the C library is.
//
// Within 2 units in the last place from 1 on, where the core asks for it (tested); 0, infinity and
// NaN as in libm. x = 2^n m with m from sqrt(1/2) on; log m = 2 atanh(s), s = (m - 1) / (m + 1), a
// series in s^2 <= 0.0295 whose rest is below 2^-58. log(2) is two numbers, of which n times the
// larger is exact.
#pragma once
#include <cmath>
#include <limits>

namespace octavo {

static inline double natural_log(double x) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (x == 0.0) return -kInfinity;
  if (!(x < kInfinity)) return x;
  int n;
  double m = std::frexp(x, &n);
  if (m < 0x1.6a09e667f3bcdp-1) {
    m *= 2.0;
    --n;
  }
  const double s = (m - 1.0) / (m + 1.0);
  const double z = s * s;
  double sum = 0.0;
  for (int odd = 21; odd > 1; odd -= 2) sum = (sum + 1.0 / odd) * z;
  return n * 0x1.62e42feep-1 + (n * 0x1.a39ef35793c76p-33 + (2.0 * s + 2.0 * s * sum));
}

}  // namespace octavo
