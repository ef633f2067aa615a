// What the parts of the fake driver share: its one lock, what is counted, what the environment says, how it complains.
#pragma once
#include <cuda.h>

#include <cstdio>
#include <mutex>

#include "machine.h"

namespace device {

struct Counts {
    size_t launches, gemms, copies_to_device, bytes_to_device, copies_to_host, bytes_to_host, copies_on_device, memsets;
    size_t allocations, refused, peak, trims, errors;
};
extern Counts counts;

using Guard = std::lock_guard<std::recursive_mutex>;
extern std::recursive_mutex &lock;

// A variable of the environment, if it has a value.
const char *variable(const char *name, const char *otherwise);

// Says what is wrong, counts it, and returns the error.
__attribute__((format(printf, 2, 3))) CUresult wrong(CUresult error, const char *format, ...);

// The context of this thread; without one, nothing can be done on a device.
extern thread_local CUcontext context;

// Whether bytes lie in one allocation.
bool lies_inside(CUdeviceptr at, size_t bytes);

// Bytes of memory that are allocated, and how many of pools are kept besides.
size_t allocated();
size_t kept();

// The host has waited for what the device was asked to do before: by a stream, or by all.
struct Moment {
    CUstream stream;
    unsigned long number;
};
Moment now(CUstream stream);
void settle(const Moment &moment);
// Copies to the host that nobody has waited for.
size_t pending();

}  // namespace device

// What every function does first that needs a context: takes the lock, and refuses without one.
#define IN_CONTEXT \
    device::Guard guard(device::lock); \
    if (!device::context) return device::wrong(CUDA_ERROR_INVALID_CONTEXT, "%s without a current context", __func__)
