// What a trainer needs, libtorch has and tch lacks. All of it lives in libtorch_cpu and libc10: no CUDA headers.
#include "common.hpp"

#include <ATen/Context.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/autocast_mode.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

// 0: done, `out` is a new tensor; else `why` says what went wrong, to be freed.
using Forward = int (*)(void* env, Tensor* const* in, size_t n, Tensor** out, char** why);
using Drop = void (*)(void* env);

namespace {

struct Closure {
  Forward forward;
  Drop drop;
  void* env;
  ~Closure() { drop(env); }
  Tensor operator()(std::vector<Tensor> in) const {
    std::vector<Tensor*> pointers;
    for (auto& t : in) pointers.push_back(&t);
    Tensor* out = nullptr;
    char* why = nullptr;
    if (forward(env, pointers.data(), pointers.size(), &out, &why)) {
      std::string text = why ? why : "a block failed under activation checkpointing";
      free(why);
      throw std::runtime_error(text);
    }
    Tensor result = *out;
    delete out;
    return result;
  }
};

// The generators that a block may draw from, and its autocast: its second run must draw and cast the same.
struct Surroundings {
  std::vector<std::pair<at::Generator, Tensor>> generators;
  at::DeviceType device;
  bool autocast;
  at::ScalarType dtype;

  static Surroundings now(const std::vector<Tensor>& in) {
    Surroundings s;
    s.device = at::kCPU;
    std::vector<at::Device> devices{at::kCPU};
    for (auto& t : in) {
      if (t.defined() && !t.is_cpu()) {
        devices.push_back(t.device());
        s.device = t.device().type();
        break;
      }
    }
    for (auto d : devices) {
      auto g = at::globalContext().defaultGenerator(d);
      std::lock_guard<std::mutex> lock(g.mutex());
      s.generators.emplace_back(g, g.get_state());
    }
    s.autocast = at::autocast::is_autocast_enabled(s.device);
    s.dtype = at::autocast::get_autocast_dtype(s.device);
    return s;
  }
  void restore() const {
    for (auto [g, state] : generators) {
      std::lock_guard<std::mutex> lock(g.mutex());
      g.set_state(state);
    }
    at::autocast::set_autocast_enabled(device, autocast);
    at::autocast::set_autocast_dtype(device, dtype);
  }
};

struct Kept : torch::CustomClassHolder {
  std::shared_ptr<Closure> closure;
  Surroundings then;
  Kept(std::shared_ptr<Closure> c, Surroundings s) : closure(std::move(c)), then(std::move(s)) {}
};

// Autocast remembers the weights that it has cast; what it casts here without a graph must not be taken for what has one,
// and what it casts for a second run should not outlive it.
struct NoCache {
  bool before = at::autocast::is_autocast_cache_enabled();
  NoCache() { at::autocast::set_autocast_cache_enabled(false); }
  ~NoCache() { at::autocast::set_autocast_cache_enabled(before); }
};

struct Recompute : torch::autograd::Function<Recompute> {
  // ArrayRef, not vector: only Tensor, optional and ArrayRef arguments are traced.
  static Tensor forward(torch::autograd::AutogradContext* c, std::shared_ptr<Closure> closure, at::ArrayRef<Tensor> inputs) {
    auto in = inputs.vec();
    c->saved_data["kept"] = c10::IValue::make_capsule(c10::make_intrusive<Kept>(closure, Surroundings::now(in)));
    c->save_for_backward(in);
    NoCache no_cache;
    return (*closure)(in);  // grad mode is off here
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* c, torch::autograd::variable_list grads) {
    auto kept = c10::static_intrusive_pointer_cast<Kept>(c->saved_data["kept"].toCapsule());
    std::vector<Tensor> in;
    for (auto& t : c->get_saved_variables())
      in.push_back(t.defined() ? t.detach().set_requires_grad(t.requires_grad()) : t);
    Tensor out;
    {
      at::AutoGradMode on(true);
      NoCache no_cache;
      auto now = Surroundings::now(in);
      kept->then.restore();
      try {
        out = (*kept->closure)(in);
      } catch (...) {
        now.restore();
        throw;
      }
      now.restore();
    }
    torch::autograd::backward({out}, {grads[0]});
    torch::autograd::variable_list result{Tensor()};  // for the closure
    for (auto& t : in) result.push_back(t.defined() && t.requires_grad() ? t.grad() : Tensor());
    return result;
  }
};

}  // namespace

extern "C" {

void af2_free(char* s) { free(s); }

Tensor* af2_checkpoint(Forward forward, Drop drop, void* env, Tensor* const* in, size_t n, char** err) {
  auto closure = std::shared_ptr<Closure>(new Closure{forward, drop, env});
  API(nullptr, auto all = tensors(in, n); return new Tensor(Recompute::apply(closure, at::ArrayRef<Tensor>(all))););
}

// Whether operations leave a graph now.
int af2_grad_enabled() { return at::GradMode::is_enabled(); }

// AdamW on many weights in one kernel. `found_inf` (one float, on the device) is 1 where nothing may be changed.
int af2_fused_adamw(Tensor* const* p, Tensor* const* g, Tensor* const* m, Tensor* const* v, Tensor* const* step, size_t n,
                    double lr, double b1, double b2, double decay, double eps, Tensor* found_inf, char** err) {
  API(-1,
    at::NoGradGuard no_grad;
    auto steps = tensors(step, n);
    at::_foreach_add_(steps, 1);
    at::_fused_adamw_(tensors(p, n), tensors(g, n), tensors(m, n), tensors(v, n), {}, steps, lr, b1, b2, decay, eps,
                      /*amsgrad=*/false, /*maximize=*/false, /*grad_scale=*/std::nullopt, *found_inf);
    // A step that was not made does not count. As torch.optim does it.
    std::vector<Tensor> same(n, *found_inf);
    at::_foreach_sub_(steps, same);
    return 0;);
}
// The norm over all of them, as torch.nn.utils.clip_grad_norm_ computes it; nothing waits for the device.
Tensor* af2_total_norm(Tensor* const* g, size_t n, char** err) {
  API(nullptr,
    at::NoGradGuard no_grad;
    return new Tensor(at::linalg_vector_norm(at::stack(at::_foreach_norm(tensors(g, n), 2, at::kFloat)), 2)););
}
int af2_foreach_mul(Tensor* const* g, size_t n, Tensor* by, char** err) {
  API(-1, at::NoGradGuard no_grad; at::_foreach_mul_(tensors(g, n), *by); return 0;);
}
// Forgets the gradients of weights: the next backward pass gives them new ones.
int af2_forget_grads(Tensor* const* p, size_t n, char** err) {
  API(-1,
    for (auto& t : tensors(p, n)) t.mutable_grad().reset();
    return 0;);
}
int af2_foreach_zero(Tensor* const* g, size_t n, char** err) {
  API(-1, at::NoGradGuard no_grad; at::_foreach_zero_(tensors(g, n)); return 0;);
}

// Turns autocast on or off; leaving the outermost forgets the weights it has cast.
int af2_autocast(int device, int on, int dtype, char** err) {
  API(-1,
    auto d = static_cast<at::DeviceType>(device);
    at::autocast::set_autocast_enabled(d, on);
    at::autocast::set_autocast_dtype(d, static_cast<at::ScalarType>(dtype));
    if (on) at::autocast::increment_nesting();
    else if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    return 0;);
}

// TensorFloat-32 on CUDA: products and convolutions of fp32 with 10 bits of mantissa. Through the one pair of setters: libtorch
// refuses to answer where these and setFloat32Precision are mixed.
int af2_allow_tf32(int on, char** err) {
  API(-1,
    at::globalContext().setAllowTF32CuBLAS(on);
    at::globalContext().setAllowTF32CuDNN(on);
    return 0;);
}
// 1: products, 2: convolutions, 3: both.
int af2_tf32(char** err) {
  API(-1, return (at::globalContext().allowTF32CuBLAS() ? 1 : 0) | (at::globalContext().allowTF32CuDNN() ? 2 : 0););
}

// The state of a device's generator (uint8), to be saved and given back. index -1: CPU.
Tensor* af2_rng_state(int index, char** err) {
  API(nullptr,
    auto g = at::globalContext().defaultGenerator(index < 0 ? at::Device(at::kCPU) : at::Device(at::kCUDA, index));
    std::lock_guard<std::mutex> lock(g.mutex());
    return new Tensor(g.get_state()););
}
int af2_set_rng_state(int index, Tensor* state, char** err) {
  API(-1,
    auto g = at::globalContext().defaultGenerator(index < 0 ? at::Device(at::kCPU) : at::Device(at::kCUDA, index));
    std::lock_guard<std::mutex> lock(g.mutex());
    g.set_state(*state);
    return 0;);
}

// Shape and kind of a tensor without its numbers, on libtorch's meta device: where a test needs a device that is not the CPU.
Tensor* af2_meta(Tensor* t, char** err) {
  API(nullptr, return new Tensor(t->detach().to(at::kMeta).set_requires_grad(t->requires_grad())););
}
int af2_is_meta(Tensor* t) { return t->is_meta(); }

// A copy in page-locked memory, under way on the device's current stream.
Tensor* af2_page_locked_copy(Tensor* from, char** err) {
  API(nullptr,
    at::NoGradGuard no_grad;
    auto to = at::empty(from->sizes(), from->options().device(at::kCPU).pinned_memory(true));
    to.copy_(*from, /*non_blocking=*/true);
    return new Tensor(to););
}

// A mark behind everything that was queued on a CUDA device so far.
void* af2_mark(int index, char** err) {
  API(nullptr,
    c10::impl::VirtualGuardImpl guard(at::kCUDA);
    auto event = std::make_unique<c10::Event>(at::kCUDA);
    event->record(guard.getStream(at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(index))));
    return event.release(););
}
// Whether the device has come to it.
int af2_mark_reached(void* mark, char** err) {
  API(-1, return static_cast<c10::Event*>(mark)->query(););
}
void af2_mark_free(void* mark) {
  try {
    delete static_cast<c10::Event*>(mark);
  } catch (...) {
  }
}

// libtorch's start on CUDA, once its library is loaded. Returns the number of devices; the error says why there is none, which
// asking for their number alone would log and forget.
int af2_cuda_begin(char** err) {
  API(-1,
    at::globalContext().setSDPUseCuDNN(false);
    at::globalContext().lazyInitDevice(at::kCUDA);
    return c10::impl::VirtualGuardImpl(at::kCUDA).deviceCount(););
}
int af2_cudnn_attention() { return at::globalContext().userEnabledCuDNNSDP(); }

// A copy in page-locked memory, from which a device reads while the host goes on.
Tensor* af2_pinned(Tensor* t, char** err) {
  API(nullptr, at::NoGradGuard no_grad; return new Tensor(t->pin_memory()););
}

// From now on kernels that give the same bits each time, where libtorch has them; of others it warns.
int af2_deterministic(char** err) {
  API(-1,
    at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/true);
    at::globalContext().setDeterministicCuDNN(true);
    at::globalContext().setBenchmarkCuDNN(false);
    return 0;);
}

int af2_is_deterministic() {
  auto& c = at::globalContext();
  return c.deterministicAlgorithms() && c.deterministicAlgorithmsWarnOnly() && c.deterministicCuDNN() && !c.benchmarkCuDNN();
}

// The CUDA device of this thread, where none is named.
int af2_use_device(int index, char** err) {
  API(-1,
    c10::impl::VirtualGuardImpl guard(at::kCUDA);
    guard.setDevice(at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(index)));
    return 0;);
}

// Bytes that the caching allocator holds for tensors: now, and at most.
int af2_device_memory(int index, int64_t* now, int64_t* peak, char** err) {
  API(-1,
    auto s = at::accelerator::getDeviceStats(static_cast<c10::DeviceIndex>(index));
    *now = s.allocated_bytes[0].current;
    *peak = s.allocated_bytes[0].peak;
    return 0;);
}
}
