// Stands between the program and NVIDIA's libraries, so that it starts where they are not.
//
// candle and cudarc call the driver, cuBLAS and cuRAND by name, as if they were linked with them. The functions of
// those names are here, and each jumps to what its slot holds: an error until the libraries are opened, and what they
// have from then on. They are opened once, by qlnet_open_cuda, or by cuInit, which comes before all others.
//
// Hidden functions: none of them takes the place of what NVIDIA's libraries call in each other. All others that
// cudarc has (graphs, textures, cuBLASLt) are not called by candle, and are left to the linker.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <glob.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The version of the toolkit that made the kernels; build.rs gives it.
#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)
#define MAJOR TEXT(QLNET_CUDA_MAJOR)

#define DRIVER(S) \
    S(cuCtxGetCurrent) S(cuCtxSetCurrent) S(cuCtxGetDevice) S(cuCtxGetFlags) S(cuCtxSetFlags) S(cuCtxGetLimit) \
    S(cuCtxSetLimit) S(cuCtxGetCacheConfig) S(cuCtxSetCacheConfig) S(cuCtxGetStreamPriorityRange) \
    S(cuCtxPushCurrent_v2) S(cuCtxPopCurrent_v2) S(cuCtxCreate_v2) S(cuCtxCreate_v3) S(cuCtxCreate_v4) \
    S(cuCtxDestroy_v2) S(cuCtxSynchronize) S(cuCtxEnablePeerAccess) S(cuCtxDisablePeerAccess) \
    S(cuDeviceCanAccessPeer) S(cuDeviceGet) S(cuDeviceGetAttribute) S(cuDeviceGetCount) S(cuDeviceGetName) \
    S(cuDeviceGetDefaultMemPool) S(cuDeviceGetMemPool) S(cuDeviceSetMemPool) S(cuDeviceGetUuid) S(cuDeviceGetUuid_v2) \
    S(cuDeviceGetPCIBusId) S(cuDeviceTotalMem_v2) S(cuDevicePrimaryCtxGetState) S(cuDevicePrimaryCtxRelease_v2) \
    S(cuDevicePrimaryCtxReset_v2) S(cuDevicePrimaryCtxRetain) S(cuDevicePrimaryCtxSetFlags_v2) S(cuDriverGetVersion) \
    S(cuEventCreate) S(cuEventDestroy_v2) S(cuEventElapsedTime) S(cuEventElapsedTime_v2) S(cuEventQuery) \
    S(cuEventRecord) S(cuEventSynchronize) S(cuFuncGetAttribute) S(cuFuncSetAttribute) S(cuFuncSetCacheConfig) \
    S(cuGetErrorName) S(cuGetErrorString) S(cuGraphDestroy) S(cuGraphExecDestroy) S(cuGraphInstantiateWithFlags) \
    S(cuGraphLaunch) S(cuGraphUpload) S(cuLaunchCooperativeKernel) S(cuLaunchHostFunc) S(cuLaunchKernel) \
    S(cuMemAdvise) S(cuMemAdvise_v2) S(cuMemAllocAsync) S(cuMemAllocFromPoolAsync) S(cuMemAllocHost_v2) \
    S(cuMemAllocManaged) S(cuMemAlloc_v2) S(cuMemFreeAsync) S(cuMemFreeHost) S(cuMemFree_v2) S(cuMemGetInfo_v2) \
    S(cuMemHostAlloc) S(cuMemHostGetDevicePointer_v2) S(cuMemHostGetFlags) S(cuMemHostRegister_v2) \
    S(cuMemHostUnregister) S(cuMemPoolCreate) S(cuMemPoolDestroy) S(cuMemPoolGetAttribute) S(cuMemPoolSetAttribute) \
    S(cuMemPoolTrimTo) S(cuMemPrefetchAsync) S(cuMemPrefetchAsync_v2) S(cuMemcpy) S(cuMemcpyAsync) \
    S(cuMemcpyDtoDAsync_v2) S(cuMemcpyDtoD_v2) S(cuMemcpyDtoHAsync_v2) S(cuMemcpyDtoH_v2) S(cuMemcpyHtoDAsync_v2) \
    S(cuMemcpyHtoD_v2) S(cuMemcpyPeerAsync) S(cuMemsetD8Async) S(cuMemsetD8_v2) S(cuMemsetD32Async) \
    S(cuModuleGetFunction) S(cuModuleGetGlobal_v2) S(cuModuleLoad) S(cuModuleLoadData) S(cuModuleLoadDataEx) \
    S(cuModuleUnload) S(cuOccupancyAvailableDynamicSMemPerBlock) S(cuOccupancyMaxActiveBlocksPerMultiprocessor) \
    S(cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags) S(cuOccupancyMaxPotentialBlockSize) \
    S(cuOccupancyMaxPotentialBlockSizeWithFlags) S(cuOccupancyMaxActiveClusters) \
    S(cuOccupancyMaxPotentialClusterSize) S(cuLaunchKernelEx) S(cuProfilerStart) S(cuProfilerStop) \
    S(cuStreamAttachMemAsync) S(cuStreamBeginCapture_v2) S(cuStreamCreate) S(cuStreamCreateWithPriority) \
    S(cuStreamDestroy_v2) S(cuStreamEndCapture) S(cuStreamIsCapturing) S(cuStreamQuery) S(cuStreamSynchronize) \
    S(cuStreamWaitEvent) S(cuStreamGetPriority) S(cuStreamGetFlags) S(cuThreadExchangeStreamCaptureMode)

#define BLAS(S) \
    S(cublasCreate_v2) S(cublasDestroy_v2) S(cublasGetVersion_v2) S(cublasGetStatusName) S(cublasGetStatusString) \
    S(cublasSetStream_v2) S(cublasGetStream_v2) S(cublasSetMathMode) S(cublasGetMathMode) S(cublasSetWorkspace_v2) \
    S(cublasSetPointerMode_v2) S(cublasGetPointerMode_v2) S(cublasSetAtomicsMode) S(cublasSgemv_v2) S(cublasDgemv_v2) \
    S(cublasHgemm) S(cublasSgemm_v2) S(cublasDgemm_v2) S(cublasGemmEx) S(cublasHgemmStridedBatched) \
    S(cublasSgemmStridedBatched) S(cublasDgemmStridedBatched) S(cublasGemmStridedBatchedEx) S(cublasGemmBatchedEx) \
    S(cublasSasum_v2) S(cublasDasum_v2)

// What makes a generator, and what draws from it. candle makes one with each device.
#define RANDOM(S) \
    S(curandDestroyGenerator) S(curandSetGeneratorOffset) \
    S(curandSetPseudoRandomGeneratorSeed) S(curandSetStream)
#define DRAWING(S) \
    S(curandGenerate) S(curandGenerateLogNormal) S(curandGenerateLogNormalDouble) S(curandGenerateLongLong) \
    S(curandGenerateNormal) S(curandGenerateNormalDouble) S(curandGeneratePoisson) S(curandGenerateUniform) \
    S(curandGenerateUniformDouble)

#if defined(__x86_64__)
#define JUMP(name) "jmp *qlnet_slot_" #name "(%rip)\n"
#elif defined(__aarch64__)
// x16 may be changed by what comes between a call and the function.
#define JUMP(name) "adrp x16, qlnet_slot_" #name "\nldr x16, [x16, :lo12:qlnet_slot_" #name "]\nbr x16\n"
#else
#error "the jump for this processor is missing"
#endif
// Functions that are not there, in the status codes of each library.
static int driver_is_closed(void) { return 3; }    // CUDA_ERROR_NOT_INITIALIZED
static int driver_lacks_it(void) { return 801; }   // CUDA_ERROR_NOT_SUPPORTED
static int blas_is_closed(void) { return 1; }      // CUBLAS_STATUS_NOT_INITIALIZED
static int blas_lacks_it(void) { return 15; }      // CUBLAS_STATUS_NOT_SUPPORTED
static int random_is_missing(void) { return 203; } // CURAND_STATUS_INITIALIZATION_FAILED

// Without cuRAND, what is done with a generator succeeds until a number is drawn from it.
static int done(void) { return 0; }
static int name_no_generator(void **generator, int kind) {
    (void)kind;
    *generator = (void *)done;
    return 0;
}

#define FUNCTION(name, otherwise) \
    __attribute__((visibility("hidden"), used)) void *qlnet_slot_##name = (void *)otherwise; \
    __asm__(".text\n.p2align 4\n.globl " #name "\n.hidden " #name "\n.type " #name ", %function\n" #name ":\n" JUMP(name) \
            ".size " #name ", . - " #name "\n");
#define OF_DRIVER(name) FUNCTION(name, driver_is_closed)
#define OF_BLAS(name) FUNCTION(name, blas_is_closed)
#define OF_RANDOM(name) FUNCTION(name, done)
#define OF_DRAWING(name) FUNCTION(name, random_is_missing)
FUNCTION(curandCreateGenerator, name_no_generator)
DRIVER(OF_DRIVER) BLAS(OF_BLAS) RANDOM(OF_RANDOM) DRAWING(OF_DRAWING)

struct slot { const char *name; void **function; };
#define SLOT(name) {#name, &qlnet_slot_##name},
static const struct slot driver_slots[] = {DRIVER(SLOT) {0}};
static const struct slot blas_slots[] = {BLAS(SLOT) {0}};
static const struct slot random_slots[] = {RANDOM(SLOT) {0}};
static const struct slot drawing_slots[] = {DRAWING(SLOT) {0}};

// Each slot gets the library's function of its name, or else the other.
static void fill(const struct slot *slot, void *library, int (*otherwise)(void)) {
    for (; slot->name; slot++) {
        void *function = library ? dlsym(library, slot->name) : NULL;
        *slot->function = function ? function : (void *)otherwise;
    }
}

// A generator that cannot be made, of a cuRAND that does not fit the driver for example, is no reason to do without the
// device: it is as if there were no cuRAND.
static int (*create_generator)(void **, int);
static int try_to_create_generator(void **generator, int kind) {
    if (create_generator(generator, kind) == 0) return 0;
    fill(random_slots, NULL, done);
    fill(drawing_slots, NULL, random_is_missing);
    return name_no_generator(generator, kind);
}

static char failure[1024];

// Keeps why it failed, if there is more to say than that there is no such file in that folder.
static void *open_file(const char *path, int is_first) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const char *error = library ? NULL : dlerror();
    if (error && (is_first || !strstr(error, "No such file"))) snprintf(failure, sizeof failure, "%s", error);
    return library;
}

// Opens a library in the folders that a pattern names. What it needs from its own folder (libcublas needs libcublasLt)
// it finds by its own search path.
static void *open_in(const char *pattern, const char *name) {
    glob_t folders;
    void *library = NULL;
    if (glob(pattern, GLOB_NOSORT, NULL, &folders) == 0) {
        for (size_t i = 0; !library && i < folders.gl_pathc; i++) {
            char path[4096];
            if ((size_t)snprintf(path, sizeof path, "%s/%s", folders.gl_pathv[i], name) < sizeof path)
                library = open_file(path, 0);
        }
        globfree(&folders);
    }
    return library;
}

// Where the driver is when no search path names its folder: Windows's Linux, NixOS, containers of Kubernetes.
static const char *const driver_folders[] = {"/usr/lib/wsl/lib", "/run/opengl-driver/lib", "/usr/local/nvidia/lib64", NULL};

// Where CUDA's libraries are: a toolkit's folder, and what pip and conda have installed in the environment that is
// active. "$NAME" is the value of a variable; a line whose variable is not set is left out.
static const char *const toolkit_folders[] = {
    "$CUDA_HOME/lib64", "$CUDA_HOME/lib", "$CUDA_PATH/lib64", "$CUDA_PATH/lib",
    "/usr/local/cuda-" MAJOR "/lib64", "/usr/local/cuda/lib64", "/opt/cuda/lib64",
    "$VIRTUAL_ENV/lib/python3*/site-packages/nvidia/cu*/lib", "$CONDA_PREFIX/lib",
    "$CONDA_PREFIX/lib/python3*/site-packages/nvidia/cu*/lib", NULL};

// Opens a library by its name, as the loader finds it (LD_LIBRARY_PATH, the system's), else in one of the folders.
static void *open_library(const char *name, const char *const *folders) {
    void *library = open_file(name, 1);
    for (; !library && *folders; folders++) {
        char pattern[4096], variable[32];
        const char *rest = *folders, *value = "";
        if (*rest == '$') {
            size_t length = strcspn(rest, "/");
            snprintf(variable, sizeof variable, "%.*s", (int)length - 1, rest + 1);
            value = getenv(variable);
            if (!value || !*value) continue;
            rest += length;
        }
        if ((size_t)snprintf(pattern, sizeof pattern, "%s%s", value, rest) < sizeof pattern) library = open_in(pattern, name);
    }
    return library;
}

// The file that a function is from.
static const char *file_of(void *function) {
    Dl_info info;
    return function && dladdr(function, &info) && info.dli_fname ? info.dli_fname : "";
}

// What was found; texts that stay. `src/network/gpu/libraries.rs` has the same.
struct qlnet_libraries {
    int step;               // 0: all are open; else which failed: 1 the driver, 2 its cuInit, 3 cuBLAS
    int code;               // what cuInit returned
    int version;            // of CUDA, of the driver, as 1000 * major + 10 * minor; 0 where unknown
    const char *reason;     // the loader's words, or the driver's
    const char *driver;     // paths of files
    const char *blas;
    const char *random;     // empty where there is none
};
static struct qlnet_libraries found = {1, 0, 0, "", "", "", ""};
static int (*init)(unsigned);

static void open_all(void) {
    void *driver = open_library("libcuda.so.1", driver_folders);
    found.reason = failure;
    if (!driver || !(init = (int (*)(unsigned))dlsym(driver, "cuInit"))) return;
    fill(driver_slots, driver, driver_lacks_it);
    found.driver = file_of((void *)init);
    ((int (*)(int *))qlnet_slot_cuDriverGetVersion)(&found.version);
    found.step = 2;
    found.code = init(0);
    if (found.code) {
        const char *text = NULL;
        ((int (*)(int, const char **))qlnet_slot_cuGetErrorString)(found.code, &text);
        found.reason = text ? text : "";
        return;
    }
    found.step = 3;
    void *blas = open_library("libcublas.so." MAJOR, toolkit_folders);
    if (!blas) return;
    fill(blas_slots, blas, blas_lacks_it);
    found.blas = file_of(dlsym(blas, "cublasCreate_v2"));
    void *random = open_library("libcurand.so.10", toolkit_folders);
    create_generator = random ? (int (*)(void **, int))dlsym(random, "curandCreateGenerator") : NULL;
    if (create_generator) {
        fill(random_slots, random, random_is_missing);
        fill(drawing_slots, random, random_is_missing);
        qlnet_slot_curandCreateGenerator = (void *)try_to_create_generator;
        found.random = file_of((void *)create_generator);
    }
    found.reason = "";
    found.step = 0;
}

// Opens the libraries at the first call, and says at every one what came of it.
__attribute__((visibility("hidden"))) const struct qlnet_libraries *qlnet_open_cuda(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, open_all);
    return &found;
}

// The driver's, for whoever comes first without a look at what is there: a crate that uses candle by itself.
__attribute__((visibility("hidden"))) int cuInit(unsigned flags) {
    const struct qlnet_libraries *libraries = qlnet_open_cuda();
    if (libraries->step == 0) return init(flags);
    return libraries->step == 2 ? libraries->code : 100;  // CUDA_ERROR_NO_DEVICE
}
