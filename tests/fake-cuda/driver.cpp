// A libcuda.so.1 whose device is this computer: memory is malloc's, and kernels are functions of the host.
//
// Stricter than a driver where it can be: memory has no value until it is written (bytes of ones: no number in any of
// the types of floats), what is freed must have been allocated, copies and pointers given to kernels must lie in one
// allocation, nothing may be written behind one, and a kernel must be in the PTX that was loaded. What is wrong goes to
// standard error, becomes an error of the call, and is counted.
//
//   FAKE_CUDA_MEMORY=BYTES       of the device; 8 GiB without
//   FAKE_CUDA_OLD_DRIVER=1       a driver of CUDA 12.4; =ptx says 13.0, and refuses PTX as an older one does
//   FAKE_CUDA_CAPABILITY=8.0     compute capability; PTX for a later one is refused
//   FAKE_CUDA_DEVICES=1          how many
//   FAKE_CUDA_TRACE=FILE         gets at the end how often every kernel was launched, and what was copied
#include <cuda.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "machine.h"

namespace machine {
void for_each_kernel(void (*visit)(const Kernel &));
}

namespace {

const size_t MARGIN = 256;
const unsigned char BEHIND = 0xa5;

std::recursive_mutex &lock = *new std::recursive_mutex;
std::map<CUdeviceptr, size_t> &allocations = *new std::map<CUdeviceptr, size_t>;
struct Counts {
    size_t launches, gemms, copies_to_device, bytes_to_device, copies_to_host, bytes_to_host, copies_on_device, memsets;
    size_t allocations, allocated, peak, errors;
} counts;

const char *variable(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}
size_t memory() { return strtoull(variable("FAKE_CUDA_MEMORY", "8589934592"), nullptr, 10); }
int devices() { return atoi(variable("FAKE_CUDA_DEVICES", "1")); }
std::string old_driver() { return variable("FAKE_CUDA_OLD_DRIVER", ""); }
int capability() {
    const char *text = variable("FAKE_CUDA_CAPABILITY", "8.0");
    return 10 * atoi(text) + (strchr(text, '.') ? atoi(strchr(text, '.') + 1) : 0);
}
int driver_version() { return old_driver() == "1" ? 12040 : 13000; }

__attribute__((format(printf, 2, 3))) CUresult wrong(CUresult error, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("fake CUDA: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    counts.errors++;
    return error;
}

// Whether bytes lie in one allocation.
bool lies_inside(CUdeviceptr at, size_t bytes) {
    auto next = allocations.upper_bound(at);
    if (next == allocations.begin()) return false;
    --next;
    return at + bytes <= next->first + next->second;
}

// The version of a PTX text and the compute capability that it is for, 10 times each.
int number_after(const char *text, const char *word) {
    const char *at = strstr(text, word);
    if (!at) return 0;
    at += strlen(word);
    const int whole = atoi(at);
    const char *point = strchr(at, '.');
    return point && strspn(at, " 0123456789") == size_t(point - at) ? 10 * whole + atoi(point + 1) : whole;
}

const std::map<int, std::pair<const char *, const char *>> NAMES{
    {0, {"CUDA_SUCCESS", "no error"}},
    {1, {"CUDA_ERROR_INVALID_VALUE", "invalid argument"}},
    {2, {"CUDA_ERROR_OUT_OF_MEMORY", "out of memory"}},
    {3, {"CUDA_ERROR_NOT_INITIALIZED", "initialization error"}},
    {100, {"CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"}},
    {101, {"CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"}},
    {209, {"CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"}},
    {218, {"CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"}},
    {222, {"CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "the provided PTX was compiled with an unsupported toolchain."}},
    {500, {"CUDA_ERROR_NOT_FOUND", "named symbol not found"}},
    {700, {"CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"}},
    {801, {"CUDA_ERROR_NOT_SUPPORTED", "operation not supported"}},
};

struct Report {
    ~Report() {
        const char *name = getenv("FAKE_CUDA_TRACE");
        FILE *file = name ? fopen(name, "w") : nullptr;
        if (!file) return;
        static FILE *to = file;
        machine::for_each_kernel([](const machine::Kernel &kernel) {
            if (kernel.launches) fprintf(to, "kernel %s %ld\n", kernel.name, kernel.launches);
        });
        const Counts &c = counts;
        fprintf(file, "launches %zu\ngemms %zu\n", c.launches, c.gemms);
        fprintf(file, "copies_to_device %zu\nbytes_to_device %zu\n", c.copies_to_device, c.bytes_to_device);
        fprintf(file, "copies_to_host %zu\nbytes_to_host %zu\n", c.copies_to_host, c.bytes_to_host);
        fprintf(file, "copies_on_device %zu\nmemsets %zu\n", c.copies_on_device, c.memsets);
        fprintf(file, "allocations %zu\nleft_bytes %zu\npeak_bytes %zu\n", c.allocations, c.allocated, c.peak);
        fprintf(file, "errors %zu\n", c.errors);
        fclose(file);
    }
} report;

using Guard = std::lock_guard<std::recursive_mutex>;

}  // namespace

bool machine::is_allocated(const void *at) { return !at || lies_inside(CUdeviceptr(at), 1); }

// For the fake cuBLAS: counts a product, after a look at what it reads and writes.
extern "C" bool fake_cuda_gemm(const void *a, size_t a_bytes, const void *b, size_t b_bytes, void *c, size_t c_bytes) {
    Guard guard(lock);
    counts.gemms++;
    if (lies_inside(CUdeviceptr(a), a_bytes) && lies_inside(CUdeviceptr(b), b_bytes) && lies_inside(CUdeviceptr(c), c_bytes))
        return true;
    wrong(CUDA_ERROR_ILLEGAL_ADDRESS, "a matrix product of %zu, %zu and %zu bytes outside of allocations", a_bytes, b_bytes, c_bytes);
    return false;
}

extern "C" {

CUresult cuInit(unsigned) { return devices() ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE; }
CUresult cuDriverGetVersion(int *version) { return *version = driver_version(), CUDA_SUCCESS; }
CUresult cuGetErrorName(CUresult error, const char **text) {
    auto name = NAMES.find(error);
    return *text = name == NAMES.end() ? "CUDA_ERROR_UNKNOWN" : name->second.first, CUDA_SUCCESS;
}
CUresult cuGetErrorString(CUresult error, const char **text) {
    auto name = NAMES.find(error);
    return *text = name == NAMES.end() ? "unknown error" : name->second.second, CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *count) { return *count = devices(), CUDA_SUCCESS; }
CUresult cuDeviceGet(CUdevice *device, int number) {
    if (number < 0 || number >= devices()) return CUDA_ERROR_INVALID_DEVICE;
    return *device = number, CUDA_SUCCESS;
}
CUresult cuDeviceGetName(char *name, int size, CUdevice) { return snprintf(name, size, "fake CUDA device"), CUDA_SUCCESS; }
CUresult cuDeviceTotalMem(size_t *bytes, CUdevice) { return *bytes = memory(), CUDA_SUCCESS; }
CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice) {
    switch (attribute) {
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = capability() / 10; break;
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = capability() % 10; break;
        case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = 1024; break;
        case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *value = 32; break;
        default: *value = 1;
    }
    return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice) { return *context = CUcontext(1), CUDA_SUCCESS; }
CUresult cuDevicePrimaryCtxRelease(CUdevice) { return CUDA_SUCCESS; }
CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *pool, CUdevice) { return *pool = CUmemoryPool(1), CUDA_SUCCESS; }
CUresult cuMemPoolSetAttribute(CUmemoryPool, CUmemPool_attribute, void *) { return CUDA_SUCCESS; }
CUresult cuMemPoolTrimTo(CUmemoryPool, size_t) { return CUDA_SUCCESS; }

static thread_local CUcontext current_context;
CUresult cuCtxGetCurrent(CUcontext *context) { return *context = current_context, CUDA_SUCCESS; }
CUresult cuCtxSetCurrent(CUcontext context) { return current_context = context, CUDA_SUCCESS; }
CUresult cuCtxSynchronize() { return CUDA_SUCCESS; }

CUresult cuStreamCreate(CUstream *stream, unsigned) { return *stream = CUstream(16), CUDA_SUCCESS; }
CUresult cuStreamDestroy(CUstream) { return CUDA_SUCCESS; }
CUresult cuStreamSynchronize(CUstream) { return CUDA_SUCCESS; }
CUresult cuStreamWaitEvent(CUstream, CUevent, unsigned) { return CUDA_SUCCESS; }
CUresult cuStreamIsCapturing(CUstream, CUstreamCaptureStatus *status) {
    return *status = CU_STREAM_CAPTURE_STATUS_NONE, CUDA_SUCCESS;
}
CUresult cuEventCreate(CUevent *event, unsigned) { return *event = CUevent(1), CUDA_SUCCESS; }
CUresult cuEventDestroy(CUevent) { return CUDA_SUCCESS; }
CUresult cuEventRecord(CUevent, CUstream) { return CUDA_SUCCESS; }
CUresult cuEventSynchronize(CUevent) { return CUDA_SUCCESS; }

CUresult cuMemGetInfo(size_t *free, size_t *total) {
    Guard guard(lock);
    *total = memory();
    *free = *total - counts.allocated;
    return CUDA_SUCCESS;
}
CUresult cuMemAlloc(CUdeviceptr *at, size_t bytes) {
    Guard guard(lock);
    if (!bytes) return wrong(CUDA_ERROR_INVALID_VALUE, "an allocation of no bytes");
    void *found = bytes > memory() - counts.allocated ? nullptr : aligned_alloc(256, (bytes + MARGIN + 255) / 256 * 256);
    if (!found) return CUDA_ERROR_OUT_OF_MEMORY;
    memset(found, 0xff, bytes);
    memset(static_cast<char *>(found) + bytes, BEHIND, MARGIN);
    *at = CUdeviceptr(found);
    allocations[*at] = bytes;
    counts.allocations++;
    counts.allocated += bytes;
    if (counts.allocated > counts.peak) counts.peak = counts.allocated;
    return CUDA_SUCCESS;
}
CUresult cuMemFree(CUdeviceptr at) {
    Guard guard(lock);
    auto found = allocations.find(at);
    if (found == allocations.end()) return wrong(CUDA_ERROR_INVALID_VALUE, "memory is freed that is not allocated");
    const size_t bytes = found->second;
    allocations.erase(found);
    counts.allocated -= bytes;
    CUresult result = CUDA_SUCCESS;
    for (size_t i = 0; i < MARGIN && !result; i++)
        if (reinterpret_cast<unsigned char *>(at)[bytes + i] != BEHIND)
            result = wrong(CUDA_ERROR_ILLEGAL_ADDRESS, "byte %zu behind an allocation of %zu was written", i, bytes);
    free(reinterpret_cast<void *>(at));
    return result;
}
CUresult cuMemAllocAsync(CUdeviceptr *at, size_t bytes, CUstream) { return cuMemAlloc(at, bytes); }
CUresult cuMemFreeAsync(CUdeviceptr at, CUstream) { return cuMemFree(at); }

static CUresult copy(CUdeviceptr to, CUdeviceptr from, size_t bytes, bool from_device, bool to_device) {
    if ((to_device && !lies_inside(to, bytes)) || (from_device && !lies_inside(from, bytes)))
        return wrong(CUDA_ERROR_INVALID_VALUE, "a copy of %zu bytes that lie in no allocation", bytes);
    memmove(reinterpret_cast<void *>(to), reinterpret_cast<void *>(from), bytes);
    return CUDA_SUCCESS;
}
CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t bytes, CUstream) {
    Guard guard(lock);
    counts.copies_to_device++;
    counts.bytes_to_device += bytes;
    return copy(to, CUdeviceptr(from), bytes, false, true);
}
CUresult cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t bytes, CUstream) {
    Guard guard(lock);
    counts.copies_to_host++;
    counts.bytes_to_host += bytes;
    return copy(CUdeviceptr(to), from, bytes, true, false);
}
CUresult cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream) {
    Guard guard(lock);
    counts.copies_on_device++;
    return copy(to, from, bytes, true, true);
}
CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes, CUstream) {
    Guard guard(lock);
    counts.memsets++;
    if (!lies_inside(to, bytes)) return wrong(CUDA_ERROR_INVALID_VALUE, "%zu bytes are set that lie in no allocation", bytes);
    memset(reinterpret_cast<void *>(to), value, bytes);
    return CUDA_SUCCESS;
}

// A module is the text of its PTX: a kernel must be an entry there.
CUresult cuModuleLoadData(CUmodule *module, const void *image) {
    Guard guard(lock);
    const char *text = static_cast<const char *>(image);
    const int version = number_after(text, "\n.version "), target = number_after(text, "\n.target sm_");
    if (!version || !target) return wrong(CUDA_ERROR_INVALID_PTX, "a module that is no PTX");
    // CUDA 12.4 reads PTX up to 8.4, and 13.0 up to 9.0.
    if (version > (old_driver().empty() ? 90 : 84)) return CUDA_ERROR_UNSUPPORTED_PTX_VERSION;
    if (target > capability()) return CUDA_ERROR_NO_BINARY_FOR_GPU;
    *module = CUmodule(new std::string(text));
    return CUDA_SUCCESS;
}
CUresult cuModuleUnload(CUmodule module) { return delete reinterpret_cast<std::string *>(module), CUDA_SUCCESS; }
CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
    Guard guard(lock);
    if (reinterpret_cast<std::string *>(module)->find(".entry " + std::string(name) + "(") == std::string::npos)
        return wrong(CUDA_ERROR_NOT_FOUND, "the PTX has no kernel %s", name);
    machine::Kernel *kernel = machine::find_kernel(name);
    if (!kernel) return wrong(CUDA_ERROR_NOT_FOUND, "the fake device has no kernel %s", name);
    *function = CUfunction(kernel);
    return CUDA_SUCCESS;
}
CUresult cuLaunchKernel(CUfunction function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                        unsigned, CUstream, void **arguments, void **) {
    Guard guard(lock);
    auto *kernel = reinterpret_cast<machine::Kernel *>(function);
    const size_t threads = size_t(bx) * by * bz;
    if (!gx || !gy || !gz || !threads || threads > 1024 || bz > 64 || gx > 2147483647u || gy > 65535 || gz > 65535)
        return wrong(CUDA_ERROR_INVALID_VALUE, "%s: %ux%ux%u blocks of %ux%ux%u threads", kernel->name, gx, gy, gz, bx, by, bz);
    if (!kernel->check(arguments))
        return wrong(CUDA_ERROR_ILLEGAL_ADDRESS, "%s is given a pointer to memory that is not allocated", kernel->name);
    counts.launches++;
    kernel->launches++;
    machine::launch(*kernel, {gx, gy, gz}, {bx, by, bz}, arguments);
    return CUDA_SUCCESS;
}

}  // extern "C"
