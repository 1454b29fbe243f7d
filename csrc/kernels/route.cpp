// route.cpp: which experts a row meets, and how much of what each makes. Defined beside
// RowKernels::route in rows.h.
#include "kernels/simd.h"

#include "kernels/activations.h"
#include "kernels/logits.h"
#include "kernels/rows_parts.h"

namespace octavo::OCTAVO_ISA {

OCTAVO_INLINE void store_first(float* out, int32_t n, f32x16 v) {
  if (n >= 16) store_f(out, v);
  else store_f_mask(out, first_lanes(n), v);
}

// The sum is 16 chains over k % 16, then the tree of reduce_add. out may be x.
static void softmax(const float* x, int32_t n, float* out) {
  const f32x16 most = set1_f(largest_logit(x, n));
  f32x16 sum = zero_f();
  for (int32_t k = 0; k < n; k += 16) {
    const f32x16 e = exp2_poly(mul(sub(load_logits(x, k, n), most), set1_f(kLog2e)));
    sum = add(e, sum);
    store_first(out + k, n - k, e);
  }
  const f32x16 all = set1_f(reduce_add(sum));
  for (int32_t k = 0; k < n; k += 16) store_first(out + k, n - k, div(load_logits(out, k, n), all));
}

static void sigmoid(const float* x, int32_t n, float* out) {
  for (int32_t k = 0; k < n; k += 16)
    store_first(out + k, n - k, times_sigmoid(set1_f(1.0f), load_logits(x, k, n)));
}

// The greatest of x, which is not NaN; the lowest of several.
static int32_t best_of(const float* x, int32_t n) {
  int32_t best = 0;
  for (int32_t i = 1; i < n; i++)
    if (x[i] > x[best]) best = i;
  return best;
}

// -inf for the experts of all groups but the best. With a bias a group is as good as two experts.
static void leave_groups_out(const Routing& r, bool of_two, float* choosing) {
  const int32_t size = r.experts / r.groups;
  float goodness[kMaxExperts];
  for (int32_t g = 0; g < r.groups; g++) {
    float* group = choosing + g * size;
    const int32_t best = best_of(group, size);
    goodness[g] = group[best];
    if (!of_two) continue;
    const float first = group[best];
    group[best] = kMinusInf;
    goodness[g] = first + group[best_of(group, size)];
    group[best] = first;
  }
  bool used[kMaxExperts] = {};
  for (int32_t i = 0; i < r.groups_used; i++) {
    int32_t best = -1;
    for (int32_t g = 0; g < r.groups; g++)
      if (!used[g] && (best < 0 || goodness[g] > goodness[best])) best = g;
    used[best] = true;
  }
  for (int32_t i = 0; i < r.experts; i++)
    if (!used[i / size]) choosing[i] = kMinusInf;
}

void route(const Routing* routing, const float* logits, const float* choice_bias, float* out) {
  const Routing& r = *routing;
  float scores[kMaxExperts], choosing[kMaxExperts];
  if (r.score == kSoftmax) softmax(logits, r.experts, scores);
  else if (r.score == kSigmoid) sigmoid(logits, r.experts, scores);
  for (int32_t i = 0; i < r.experts; i++) {
    if (r.score == kSoftmaxOfChosen) scores[i] = logits[i];
    const float value = choice_bias ? scores[i] + choice_bias[i] : scores[i];
    choosing[i] = value == value ? value : kMinusInf;
  }
  if (r.groups > 1) leave_groups_out(r, choice_bias != nullptr, choosing);
  float* factors = out + r.used;
  bool taken[kMaxExperts] = {};
  for (int32_t rank = 0; rank < r.used; rank++) {
    int32_t best = -1;
    for (int32_t i = 0; i < r.experts; i++)
      if (!taken[i] && (best < 0 || choosing[i] > choosing[best])) best = i;
    taken[best] = true;
    out[rank] = (float)best;
    factors[rank] = scores[best];
  }
  if (r.score == kSoftmaxOfChosen) softmax(factors, r.used, factors);
  float sum = 1.0f;
  if (r.renormalise) {
    sum = factors[0];
    for (int32_t rank = 1; rank < r.used; rank++) sum += factors[rank];
  }
  for (int32_t rank = 0; rank < r.used; rank++) factors[rank] = factors[rank] / sum * r.scale;
}

}  // namespace octavo::OCTAVO_ISA
