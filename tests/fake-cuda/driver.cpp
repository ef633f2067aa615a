// A libcuda.so.1 whose device is this computer: memory is malloc's, and kernels are functions of the host.
//
// Stricter than a driver where it can be: memory has no value until it is written (bytes of ones: no number in any of
// the types of floats), what is freed must have been allocated, copies and pointers given to kernels must lie in one
// allocation, nothing may be written behind one, a kernel must be in the PTX that was loaded, and whatever is done on a
// device needs a current context. What is wrong goes to standard error, becomes an error of the call, and is counted.
//
//   FAKE_CUDA_MEMORY=BYTES       of the device; 8 GiB without
//   FAKE_CUDA_FAIL_ALLOCATION=N  there is no memory for the Nth allocation
//   FAKE_CUDA_LAZY=1             copies to the host arrive when the host waits for them, and have no value until then
//   FAKE_CUDA_LOCKS_NO_MEMORY=1  the system refuses page-locked memory
//   FAKE_CUDA_OLD_DRIVER=1       a driver of CUDA 12.4; =ptx says 13.0, and refuses PTX as an older one does
//   FAKE_CUDA_CAPABILITY=8.0     compute capability; PTX for a later one is refused
//   FAKE_CUDA_DEVICES=1          how many
//   FAKE_CUDA_TRACE=FILE         gets at the end how often every kernel was launched, and what was copied
#include <cstdarg>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <string>

#include "device.h"

using namespace device;

namespace machine {
void for_each_kernel(void (*visit)(const Kernel &));
}

Counts device::counts;
std::recursive_mutex &device::lock = *new std::recursive_mutex;
thread_local CUcontext device::context;

const char *device::variable(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

CUresult device::wrong(CUresult error, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("fake CUDA: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    counts.errors++;
    return error;
}

namespace {

int devices() { return atoi(variable("FAKE_CUDA_DEVICES", "1")); }
std::string old_driver() { return variable("FAKE_CUDA_OLD_DRIVER", ""); }
int capability() {
    const char *text = variable("FAKE_CUDA_CAPABILITY", "8.0");
    return 10 * atoi(text) + (strchr(text, '.') ? atoi(strchr(text, '.') + 1) : 0);
}
int driver_version() { return old_driver() == "1" ? 12040 : 13000; }


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
    {201, {"CUDA_ERROR_INVALID_CONTEXT", "invalid device context"}},
    {209, {"CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"}},
    {218, {"CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"}},
    {222, {"CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "the provided PTX was compiled with an unsupported toolchain."}},
    {400, {"CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"}},
    {500, {"CUDA_ERROR_NOT_FOUND", "named symbol not found"}},
    {700, {"CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"}},
    {801, {"CUDA_ERROR_NOT_SUPPORTED", "operation not supported"}},
};

struct Report {
    ~Report() {
        if (pending()) wrong(CUDA_ERROR_UNKNOWN, "nobody waited for %zu copies to the host", pending());
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
        fprintf(file, "allocations %zu\nrefused %zu\ntrims %zu\n", c.allocations, c.refused, c.trims);
        fprintf(file, "left_bytes %zu\nkept_bytes %zu\npeak_bytes %zu\n", allocated(), kept(), c.peak);
        fprintf(file, "errors %zu\n", c.errors);
        fclose(file);
    }
} report;

std::set<CUstream> &streams = *new std::set<CUstream>;
std::map<CUevent, Moment> &events = *new std::map<CUevent, Moment>;

// Modules and streams that there are. The null stream is always there.
std::set<std::string *> &modules = *new std::set<std::string *>;
bool is_stream(CUstream stream) { return !stream || streams.count(stream); }

}  // namespace

// For the fake cuBLAS: counts a product, after a look at what it reads and writes.
extern "C" bool fake_cuda_gemm(const void *a, size_t a_bytes, const void *b, size_t b_bytes, void *c, size_t c_bytes) {
    Guard guard(lock);
    counts.gemms++;
    if (!context) return wrong(CUDA_ERROR_INVALID_CONTEXT, "a matrix product without a current context"), false;
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
CUresult cuDevicePrimaryCtxRetain(CUcontext *found, CUdevice device) {
    return *found = reinterpret_cast<CUcontext>(size_t(device) + 1), CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease(CUdevice) { return CUDA_SUCCESS; }
CUresult cuCtxGetCurrent(CUcontext *current) { return *current = context, CUDA_SUCCESS; }
CUresult cuCtxSetCurrent(CUcontext current) { return context = current, CUDA_SUCCESS; }
CUresult cuCtxSynchronize() {
    IN_CONTEXT;
    return settle(now(nullptr)), CUDA_SUCCESS;
}

CUresult cuStreamCreate(CUstream *stream, unsigned) {
    IN_CONTEXT;
    static size_t number = 16;
    *stream = CUstream(++number);
    return streams.insert(*stream), CUDA_SUCCESS;
}
CUresult cuStreamDestroy(CUstream stream) {
    IN_CONTEXT;
    return streams.erase(stream) ? CUDA_SUCCESS : wrong(CUDA_ERROR_INVALID_HANDLE, "no stream is destroyed");
}
CUresult cuStreamSynchronize(CUstream stream) {
    IN_CONTEXT;
    if (!is_stream(stream)) return wrong(CUDA_ERROR_INVALID_HANDLE, "waits for no stream");
    return settle(now(stream)), CUDA_SUCCESS;
}
CUresult cuStreamWaitEvent(CUstream, CUevent, unsigned) { return CUDA_SUCCESS; }
CUresult cuStreamIsCapturing(CUstream, CUstreamCaptureStatus *status) {
    return *status = CU_STREAM_CAPTURE_STATUS_NONE, CUDA_SUCCESS;
}
CUresult cuEventCreate(CUevent *event, unsigned) {
    IN_CONTEXT;
    static size_t number;
    *event = CUevent(++number);
    return events[*event] = {nullptr, 0}, CUDA_SUCCESS;
}
CUresult cuEventDestroy(CUevent event) {
    IN_CONTEXT;
    return events.erase(event) ? CUDA_SUCCESS : wrong(CUDA_ERROR_INVALID_HANDLE, "no event is destroyed");
}
CUresult cuEventRecord(CUevent event, CUstream stream) {
    IN_CONTEXT;
    if (!events.count(event) || !is_stream(stream)) return wrong(CUDA_ERROR_INVALID_HANDLE, "no event is recorded, or in no stream");
    return events[event] = now(stream), CUDA_SUCCESS;
}
CUresult cuEventSynchronize(CUevent event) {
    IN_CONTEXT;
    if (!events.count(event)) return wrong(CUDA_ERROR_INVALID_HANDLE, "waits for no event");
    return settle(events[event]), CUDA_SUCCESS;
}

// A module is the text of its PTX: a kernel must be an entry there.
CUresult cuModuleLoadData(CUmodule *module, const void *image) {
    IN_CONTEXT;
    const char *text = static_cast<const char *>(image);
    const int version = number_after(text, "\n.version "), target = number_after(text, "\n.target sm_");
    if (!version || !target) return wrong(CUDA_ERROR_INVALID_PTX, "a module that is no PTX");
    // CUDA 12.4 reads PTX up to 8.4, and 13.0 up to 9.0.
    if (version > (old_driver().empty() ? 90 : 84)) return CUDA_ERROR_UNSUPPORTED_PTX_VERSION;
    if (target > capability()) return CUDA_ERROR_NO_BINARY_FOR_GPU;
    auto *loaded = new std::string(text);
    modules.insert(loaded);
    return *module = CUmodule(loaded), CUDA_SUCCESS;
}
CUresult cuModuleUnload(CUmodule module) {
    IN_CONTEXT;
    auto *loaded = reinterpret_cast<std::string *>(module);
    if (!modules.erase(loaded)) return wrong(CUDA_ERROR_INVALID_HANDLE, "a module is unloaded that is not loaded");
    return delete loaded, CUDA_SUCCESS;
}
CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
    IN_CONTEXT;
    auto *loaded = reinterpret_cast<std::string *>(module);
    if (!modules.count(loaded)) return wrong(CUDA_ERROR_INVALID_HANDLE, "%s of a module that is not loaded", name);
    if (loaded->find(".entry " + std::string(name) + "(") == std::string::npos)
        return wrong(CUDA_ERROR_NOT_FOUND, "the PTX has no kernel %s", name);
    machine::Kernel *kernel = machine::find_kernel(name);
    if (!kernel) return wrong(CUDA_ERROR_NOT_FOUND, "the fake device has no kernel %s", name);
    *function = CUfunction(kernel);
    return CUDA_SUCCESS;
}
CUresult cuLaunchKernel(CUfunction function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                        unsigned, CUstream stream, void **arguments, void **) {
    IN_CONTEXT;
    auto *kernel = reinterpret_cast<machine::Kernel *>(function);
    const size_t threads = size_t(bx) * by * bz;
    if (!gx || !gy || !gz || !threads || threads > 1024 || bz > 64 || gx > 2147483647u || gy > 65535 || gz > 65535)
        return wrong(CUDA_ERROR_INVALID_VALUE, "%s: %ux%ux%u blocks of %ux%ux%u threads", kernel->name, gx, gy, gz, bx, by, bz);
    if (!is_stream(stream)) return wrong(CUDA_ERROR_INVALID_HANDLE, "%s in no stream", kernel->name);
    if (!kernel->check(arguments))
        return wrong(CUDA_ERROR_ILLEGAL_ADDRESS, "%s is given a pointer to memory that is not allocated", kernel->name);
    counts.launches++;
    kernel->launches++;
    machine::launch(*kernel, {gx, gy, gz}, {bx, by, bz}, arguments);
    return CUDA_SUCCESS;
}

}  // extern "C"
