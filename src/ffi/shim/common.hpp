// What both halves of the shim share: every call catches, and hands its error over as a C string.
#pragma once
#include <ATen/ATen.h>
#include <cstring>
#include <vector>

using at::Tensor;

#define API(fail, ...)                                                       \
  try {                                                                      \
    __VA_ARGS__                                                              \
  } catch (const c10::Error& e) {                                            \
    *err = strdup(e.what_without_backtrace());                               \
  } catch (const std::exception& e) {                                        \
    *err = strdup(e.what());                                                 \
  } catch (...) {                                                            \
    *err = strdup("an unknown C++ exception");                               \
  }                                                                          \
  return fail

// Tensors cross as tch's `*mut C_tensor`, which is `at::Tensor*`.
static inline std::vector<Tensor> tensors(Tensor* const* p, size_t n) {
  std::vector<Tensor> v;
  v.reserve(n);
  for (size_t i = 0; i < n; i++) v.push_back(*p[i]);
  return v;
}
