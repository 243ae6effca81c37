// What `af2 gpu-check` asks of libtorch: which attention kernel each call got, and a device's memory and clock.
#include "common.hpp"

#include <ATen/Context.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/core/grad_mode.h>
#include <ATen/record_function.h>

#include <mutex>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>

namespace {

std::mutex writing;
std::string calls;
std::optional<at::CallbackHandle> listener;
// What this thread asked attention for last: under autocast the operation calls itself with what it has cast.
thread_local std::string asked;

void shape(std::ostringstream& out, const at::IValue& value) {
  if (value.isTensor() && value.toTensor().defined()) {
    out << value.toTensor().sizes();
  } else {
    out << "none";
  }
  out << '\t';
}

// Backward passes run on threads of autograd's own: all of them come here.
std::unique_ptr<at::ObserverContext> heard(const at::RecordFunction& call) {
  constexpr std::string_view attention = "aten::scaled_dot_product_attention", kernel = "aten::_scaled_dot_product_";
  const std::string_view name = call.name();
  if (name == attention) {
    auto in = call.inputs();
    if (in.size() < 8 || !in[0].isTensor()) return nullptr;
    std::ostringstream out;
    shape(out, in[0]);
    shape(out, in[1]);
    shape(out, in[3]);
    auto& q = in[0].toTensor();
    const bool grad = at::GradMode::is_enabled() &&
        (q.requires_grad() || in[1].toTensor().requires_grad() || in[2].toTensor().requires_grad());
    out << c10::toString(q.scalar_type()) << '\t' << in[5].toBool() << '\t' << in[7].toBool() << '\t' << grad;
    asked = out.str();
  } else if (name.substr(0, kernel.size()) == kernel && name.find("_backward") == name.npos) {
    std::lock_guard<std::mutex> alone(writing);
    calls += asked + '\t' + std::string(name.substr(kernel.size())) + '\n';
  }
  return nullptr;
}

}  // namespace

extern "C" {

// From now on every attention call of this process is written down.
int af2_attention_listen(char** err) {
  API(-1,
    std::lock_guard<std::mutex> alone(writing);
    calls.clear();
    if (!listener) listener = at::addGlobalCallback(at::RecordFunctionCallback(heard).needsInputs(true));
    return 0;);
}
// A line a call, to be freed: shapes of q, k and mask, dtype, causal, grouped, whether a gradient is wanted, kernel. Not any more.
char* af2_attention_heard(char** err) {
  API(nullptr,
    std::lock_guard<std::mutex> alone(writing);
    if (auto had = std::exchange(listener, std::nullopt)) at::removeCallback(*had);
    return strdup(std::exchange(calls, {}).c_str()););
}

// CUDA's version as this libtorch runs it (13000 is 13.0) and cuDNN's (91900 is 9.19).
int af2_cuda_versions(int64_t* cuda, int64_t* cudnn, char** err) {
  API(-1,
    *cuda = at::Context::versionCUDART();
    *cudnn = at::Context::versionRuntimeCuDNN();
    return 0;);
}

// Waits until the device has done what it was told.
int af2_synchronize(int index, char** err) {
  API(-1, at::accelerator::synchronizeDevice(static_cast<c10::DeviceIndex>(index)); return 0;);
}
// The largest amounts of memory are counted from now on.
int af2_reset_peak(int index, char** err) {
  API(-1, at::accelerator::resetPeakStats(static_cast<c10::DeviceIndex>(index)); return 0;);
}
int af2_empty_cache(char** err) {
  API(-1, at::accelerator::emptyCache(); return 0;);
}
// Bytes: free and all of the device, and the most that the allocator has held of it, used or not.
int af2_memory_info(int index, int64_t* free, int64_t* total, int64_t* reserved, char** err) {
  API(-1,
    const auto device = static_cast<c10::DeviceIndex>(index);
    const auto info = at::accelerator::getMemoryInfo(device);
    *free = static_cast<int64_t>(info.first);
    *total = static_cast<int64_t>(info.second);
    *reserved = at::accelerator::getDeviceStats(device).reserved_bytes[0].peak;
    return 0;);
}
}
