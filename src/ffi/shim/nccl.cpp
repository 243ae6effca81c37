// Built as a shared object of its own with undefined symbols on purpose: they are found in libtorch_cuda.so, which is
// loaded before it. So the program itself never links CUDA.
#include <c10/cuda/CUDAFunctions.h>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

extern "C" __attribute__((visibility("default"))) c10::intrusive_ptr<c10d::Backend>* af2_nccl_new(
    const c10::intrusive_ptr<c10d::Store>* store, int rank, int world, int64_t timeout_ms, int device, char** err) {
  try {
    c10::cuda::set_device(static_cast<c10::DeviceIndex>(device));
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = std::chrono::milliseconds(timeout_ms);
    auto group = c10::make_intrusive<c10d::ProcessGroupNCCL>(*store, rank, world, options);
    group->setSequenceNumberForGroup();
    group->eagerConnectSingleDevice(at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(device)));
    return new c10::intrusive_ptr<c10d::Backend>(group);
  } catch (const std::exception& e) {
    *err = strdup(e.what());
    return nullptr;
  }
}
