// Built as a shared object of its own with undefined symbols on purpose: they are found in libtorch_cuda.so, which is
// loaded before it. So the program itself never links CUDA.
#include <c10/cuda/CUDAFunctions.h>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include <cstdlib>

extern "C" __attribute__((visibility("default"))) c10::intrusive_ptr<c10d::Backend>* af2_nccl_new(
    const c10::intrusive_ptr<c10d::Store>* store, int rank, int world, int64_t timeout_ms, int device, char** err) {
  try {
    // A lost rank is found out, named and saved after by us: NCCL's watchdog would end the process without a word, or give
    // up a reduction and let the update that is queued behind it run on half of a gradient. torchrun sets the first. An error of
    // CUDA's the watchdog throws again, whatever the first says, unless the last says not to.
    for (auto name : {"TORCH_NCCL_ASYNC_ERROR_HANDLING", "TORCH_NCCL_ENABLE_MONITORING", "TORCH_NCCL_DUMP_ON_TIMEOUT",
                      "TORCH_NCCL_RETHROW_CUDA_ERRORS"})
      setenv(name, "0", 1);
    // Behind a failed reduction it sleeps four times as long, with the lock that an abort needs: by default a minute, and a
    // launcher's grace is over before.
    setenv("TORCH_NCCL_WAIT_TIMEOUT_DUMP_MILSEC", "100", 1);
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
