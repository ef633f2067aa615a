// Runs the kernels of one dialect and element type on this host, as the standard input asks:
//
//     NAME THREADS OUTPUT-BYTES COUNT INPUT-BYTES... COUNT SIZES... COUNT NUMBERS...
//
// on a line, and then the bytes of the inputs, and answers with those of the output. Buffers are as large as their
// tensors to the byte, for sanitizers to see every step outside; outputs consist of NaN until they are written. With an
// argument it writes the names of its kernels.

#ifdef METAL
#include "kernels.metal"
#undef device
#undef constant
#undef kernel
// The last argument is the thread's number.
static const bool METAL_THREAD = true;
#else
static const bool METAL_THREAD = false;
#include "cuda/builtins.h"
#include "kernels.cu"
#endif

static const unsigned BLOCK = 256;

using Any = void (*)();

// Calls a kernel for one thread, with an address for each of its arguments.
template <typename... A, size_t... I>
static void call(Any kernel, void **arguments, unsigned thread, std::index_sequence<I...>) {
#ifdef METAL
    arguments[sizeof...(A) - 1] = &thread;
#else
    threadIdx.x = thread % BLOCK, blockIdx.x = thread / BLOCK;
#endif
    const auto typed = reinterpret_cast<void (*)(A...)>(kernel);
    typed(*static_cast<std::remove_const_t<std::remove_reference_t<A>> *>(arguments[I])...);
}

template <typename... A> static void call(Any kernel, void **arguments, unsigned thread) {
    call<A...>(kernel, arguments, thread, std::index_sequence_for<A...>());
}

struct Entry {
    template <typename... A>
    Entry(const char *name, void (*kernel)(A...))
        : name(name), arguments(sizeof...(A)), kernel(reinterpret_cast<Any>(kernel)), call(::call<A...>) {}

    const char *name;
    size_t arguments;
    Any kernel;
    void (*call)(Any kernel, void **arguments, unsigned thread);
};

#define TEXT(name) #name
#define ENTRY(name) {TEXT(name), name}
#define NAMED(op, suffix, number) NAME(op, TYPE, suffix, number)
#define BOTH(op) ENTRY_OF(op, _v, 1), ENTRY_OF(op, _v, WIDEST)
#define ENTRY_OF(op, suffix, number) ENTRY_NAMED(NAMED(op, suffix, number))
#define ENTRY_NAMED(name) ENTRY(name)
static const Entry ENTRIES[] = {
    ENTRY_OF(pixels, , ),
    ENTRY_OF(windows, , ),
    BOTH(pool),
    BOTH(residual),
    BOTH(subsample),
    BOTH(hardball),
    BOTH(residual_hardball),
    BOTH(mean),
    ENTRY_OF(depthwise, _f1_s1_v, 1),
    ENTRY_OF(depthwise, _f1_s1_v, 4),
    ENTRY_OF(depthwise, _f1_s2_v, 1),
    ENTRY_OF(depthwise, _f1_s2_v, 4),
    ENTRY_OF(depthwise, _f2_s1_v, 1),
    ENTRY_OF(depthwise, _f2_s1_v, 4),
    ENTRY_OF(depthwise, _f2_s2_v, 1),
    ENTRY_OF(depthwise, _f2_s2_v, 4),
};

[[noreturn]] static void refuse(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(2);
}

template <typename T> static std::vector<T> list(const char *format) {
    unsigned count = 0;
    if (scanf("%u", &count) != 1) refuse("a request without the length of a list");
    std::vector<T> values(count);
    for (T &value : values) {
        if (scanf(format, &value) != 1) refuse("a request with a list that is too short");
    }
    return values;
}

// Threads from one on to before another; whole warps where they hand values to each other.
static void run(const Entry &entry, void **arguments, unsigned from, unsigned to) {
    if (!strstr(entry.name, "hardball")) {
        for (unsigned thread = from; thread < to; thread++) entry.call(entry.kernel, arguments, thread);
        return;
    }
    for (unsigned first = from; first < to; first += host::Warp::LANES) {
        host::warp().run([&](unsigned lane) { entry.call(entry.kernel, arguments, first + lane); });
    }
}

// All threads that have work, the last of which must have some, and then, as a device runs whole blocks, at least one
// that must have none.
static void launch(const Entry &entry, void **arguments, unsigned threads, const void *output, size_t bytes) {
    const unsigned last = strstr(entry.name, "hardball") ? host::Warp::LANES : 1;
    if (threads < last || threads % last) refuse("a launch of half a warp");
    const auto writes = [&](unsigned from, unsigned to) {
        std::vector<char> before(bytes);
        memcpy(before.data(), output, bytes);
        run(entry, arguments, from, to);
        return memcmp(before.data(), output, bytes) != 0;
    };
    run(entry, arguments, 0, threads - last);
    if (!writes(threads - last, threads)) refuse("a launch of more threads than there is work for");
    if (writes(threads, (threads / BLOCK + 1) * BLOCK)) refuse("threads past the end that write");
}

static const Entry &entry_of(const char *name) {
    for (const Entry &entry : ENTRIES) {
        if (!strcmp(entry.name, name)) return entry;
    }
    refuse("a request for a kernel that is not there");
}

static bool answer() {
    char name[64];
    unsigned threads, output_bytes;
    if (scanf("%63s %u %u", name, &threads, &output_bytes) != 3) return false;
    const std::vector<unsigned> input_bytes = list<unsigned>("%u");
    std::vector<unsigned> sizes = list<unsigned>("%u");
    std::vector<float> numbers = list<float>("%f");
    int end = getchar();
    while (end == ' ') end = getchar();
    if (end != '\n') refuse("a request with more than its lists");

    std::vector<void *> pointers;
    for (unsigned bytes : input_bytes) {
        pointers.push_back(malloc(bytes));
        if (fread(pointers.back(), 1, bytes, stdin) != bytes) refuse("a request with an input that is too short");
    }
    pointers.push_back(malloc(output_bytes));
    memset(pointers.back(), 0xff, output_bytes);

    std::vector<void *> arguments;
    for (void *&pointer : pointers) arguments.push_back(&pointer);
    for (unsigned &size : sizes) arguments.push_back(&size);
    for (float &number : numbers) arguments.push_back(&number);
    const Entry &entry = entry_of(name);
    if (METAL_THREAD) arguments.push_back(nullptr);
    if (arguments.size() != entry.arguments) refuse("another number of arguments than the kernel takes");
    launch(entry, arguments.data(), threads, pointers.back(), output_bytes);
    fwrite(pointers.back(), 1, output_bytes, stdout);
    fflush(stdout);
    for (void *pointer : pointers) free(pointer);
    return true;
}

int main(int count, char **) {
    if (count > 1) {
        for (const Entry &entry : ENTRIES) puts(entry.name);
        return 0;
    }
    while (answer()) {
    }
}
