// A C interface to libtorch's own c10d: store, process group (Gloo on CPU, NCCL on CUDA), and the Reducer, which is the
// engine of DistributedDataParallel.
#include "common.hpp"

#include <c10/util/Logging.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/csrc/distributed/c10d/logger.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>

#include <mutex>
#include <utility>

using c10::intrusive_ptr;
using c10::make_intrusive;
using std::chrono::milliseconds;

using Store = intrusive_ptr<c10d::Store>;
struct Group {
  intrusive_ptr<c10d::ProcessGroup> group;
  intrusive_ptr<c10d::Backend> nccl;
};
struct Reducer {
  std::shared_ptr<c10d::Reducer> reducer;
  std::shared_ptr<c10d::Logger> logger;
};
using NcclFactory = intrusive_ptr<c10d::Backend>* (*)(const intrusive_ptr<c10d::Store>*, int, int, int64_t, int, char**);

extern "C" {

// The least severe level that libtorch logs from now on; returns what it was.
int af2_log_level(int level) { return std::exchange(FLAGS_caffe2_log_level, level); }

// ---- a store alone, for a launcher: what torchrun's agent hosts. `listens`: a socket that listens to this machine alone; the
// store's own would listen to all networks.
void* af2_store_serve(int port, int listens, char** err) {
  API(nullptr,
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = true;
    options.waitWorkers = false;
    options.masterListenFd = listens;
    auto store = make_intrusive<c10d::TCPStore>("127.0.0.1", options);
    return new intrusive_ptr<c10d::TCPStore>(store););
}
void af2_store_free(void* store) {
  try {
    delete static_cast<intrusive_ptr<c10d::TCPStore>*>(store);
  } catch (...) {
  }
}

// ---- a store that ranks meet in. `is_server`: this process hosts it (rank 0 where no agent does), on the socket `listens`
// where that is none of -1.
Store* af2_store_open(const char* host, int port, int is_server, int listens, int64_t timeout_ms, char** err) {
  API(nullptr,
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = is_server;
    // Who is here is counted by our own meeting; under an agent the ranks are not the store's only clients.
    options.waitWorkers = false;
    options.timeout = milliseconds(timeout_ms);
    if (listens >= 0) options.masterListenFd = listens;
    intrusive_ptr<c10d::Store> store = make_intrusive<c10d::TCPStore>(host, options);
    store->setTimeout(milliseconds(timeout_ms));
    return new Store(store););
}
void af2_store_close(Store* store) {
  try {
    delete store;
  } catch (...) {
  }
}
int af2_store_set(Store* store, const char* key, const char* text, char** err) {
  API(-1, (*store)->set(std::string(key), std::string(text)); return 0;);
}
// The text, to be freed, or null without an error where there is none.
char* af2_store_get(Store* store, const char* key, char** err) {
  API(nullptr,
    if (!(*store)->check({std::string(key)})) return nullptr;
    return strdup((*store)->get_to_str(std::string(key)).c_str()););
}

// ---- the process group. `address`: the one of this machine that Gloo talks through; empty for its own choice.
Group* af2_group_new(Store* of, const char* prefix, int rank, int world, int64_t timeout_ms, const char* address, void* nccl,
                     int cuda_device, char** err) {
  API(nullptr,
    intrusive_ptr<c10d::Store> store = make_intrusive<c10d::PrefixStore>(prefix, *of);
    auto group = make_intrusive<c10d::ProcessGroup>(store, rank, world);
    using Type = c10d::ProcessGroup::BackendType;
    group->setDefaultBackend(nccl ? Type::NCCL : Type::GLOO);
    using Gloo = c10d::ProcessGroupGloo;
    intrusive_ptr<Gloo::Options> options;
    if (*address) {
      options = Gloo::Options::create(milliseconds(timeout_ms));
      options->devices.push_back(Gloo::createDeviceForHostname(address));
    } else {
      options = Gloo::Options::create_default(milliseconds(timeout_ms));
    }
    auto gloo = make_intrusive<Gloo>(make_intrusive<c10d::PrefixStore>("cpu", store), rank, world, options);
    gloo->setSequenceNumberForGroup();
    group->setBackend(c10::DeviceType::CPU, Type::GLOO, c10::static_intrusive_pointer_cast<c10d::Backend>(gloo));
    intrusive_ptr<c10d::Backend> on_cuda;
    if (nccl) {
      intrusive_ptr<c10d::Store> own = make_intrusive<c10d::PrefixStore>("cuda", store);
      // Gloo, in which all ranks wait once a step, must be first to find out that one is gone.
      const int64_t later = timeout_ms + 120000;
      auto* backend = reinterpret_cast<NcclFactory>(nccl)(&own, rank, world, later, cuda_device, err);
      if (!backend) return nullptr;
      on_cuda = *backend;
      group->setBackend(c10::DeviceType::CUDA, Type::NCCL, on_cuda);
      delete backend;
    }
    group->setGroupName("default_pg");
    return new Group{group, on_cuda};);
}
void af2_group_free(Group* g) {
  try {
    // Its threads would otherwise be met by the end of the process.
    if (g->nccl) g->nccl->shutdown();
    delete g;
  } catch (...) {
  }
}

// Gives up what waits for lost ranks on the device: what is queued behind it could not be read otherwise.
int af2_group_abort(Group* g, char** err) {
  API(-1,
    if (g->nccl) g->nccl->abort();
    return 0;);
}

// libtorch's recorder of collectives, one a process, enters the group of each without a lock: two ranks in one process, as in
// tests, would write into one map at once.
static std::mutex entering;

int af2_group_all_reduce(Group* g, Tensor* const* t, size_t n, int op, char** err) {
  API(-1,
    at::NoGradGuard no_grad;
    c10d::AllreduceOptions options;
    options.reduceOp = c10d::ReduceOp(static_cast<c10d::ReduceOp::RedOpType>(op));
    for (auto& x : tensors(t, n)) {
      std::vector<Tensor> one{x};
      c10::intrusive_ptr<c10d::Work> work;
      {
        std::lock_guard<std::mutex> alone(entering);
        work = g->group->allreduce(one, options);
      }
      work->wait();
    }
    return 0;);
}
int af2_group_broadcast(Group* g, Tensor* const* t, size_t n, int root, char** err) {
  API(-1,
    at::NoGradGuard no_grad;
    std::vector<Tensor> all;
    for (auto& x : tensors(t, n)) all.push_back(x.detach());
    c10d::broadcast_coalesced(g->group, all, 250 * 1024 * 1024, root);
    return 0;);
}
// `out` and `in` are flat; out holds `world` times as much.
int af2_group_all_gather(Group* g, Tensor* out, Tensor* in, char** err) {
  API(-1,
    c10::intrusive_ptr<c10d::Work> work;
    {
      std::lock_guard<std::mutex> alone(entering);
      work = g->group->_allgather_base(*out, *in, {});
    }
    work->wait();
    return 0;);
}

// ---- the Reducer. All of `params` require gradients, get one in every backward pass, and stand in the same order on
// all ranks.
Reducer* af2_reducer_new(Group* g, Tensor* const* params, const char* const* names, size_t n, int64_t bucket_bytes,
                         char** err) {
  API(nullptr,
    auto all = tensors(params, n);
    c10d::verify_params_across_processes(g->group, all, std::nullopt);
    std::vector<bool> sparse(n, false);
    const int64_t first = std::min<int64_t>(c10d::kDefaultFirstBucketBytes, bucket_bytes);
    const std::vector<size_t> caps{static_cast<size_t>(first), static_cast<size_t>(bucket_bytes)};
    auto buckets = std::get<0>(c10d::compute_bucket_assignment_by_size(all, caps, sparse));
    std::reverse(buckets.begin(), buckets.end());
    std::unordered_map<size_t, std::string> by_index;
    for (size_t i = 0; i < n; i++) by_index[i] = names[i];
    auto reducer = std::make_shared<c10d::Reducer>(
        all, buckets, g->group, sparse, bucket_bytes, /*find_unused_parameters=*/false,
        /*gradient_as_bucket_view=*/true, by_index, first, /*skip_all_reduce_unused_params=*/false,
        /*use_python_reducer=*/false, std::vector<int64_t>{});
    auto logger = std::make_shared<c10d::Logger>(reducer);
    reducer->set_logger(logger);
    logger->set_construction_data_and_log("af2", {}, -1, false, false, false);
    return new Reducer{reducer, logger};);
}
void af2_reducer_free(Reducer* r) {
  try {
    r->reducer->remove_autograd_hooks();
    delete r;
  } catch (...) {
  }
}
// Before the forward pass whose backward pass reduces; not called where gradients only accumulate. The logger's statistics
// are left out: to read them the host would wait for the device.
int af2_reducer_before_forward(Reducer* r, char** err) {
  API(-1,
    r->reducer->prepare_for_forward();
    r->reducer->rebuild_buckets();
    return 0;);
}
int af2_reducer_before_backward(Reducer* r, char** err) {
  API(-1, r->reducer->prepare_for_backward({}); return 0;);
}
}
