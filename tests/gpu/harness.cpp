// Runs the kernels of one dialect and element type on this host, as the standard input asks:
//
//     NAME THREADS OUTPUT-BYTES COUNT INPUT-BYTES... COUNT SIZES... COUNT NUMBERS...
//
// on a line, and then the bytes of the inputs, and answers with those of the output. Buffers are as large as their
// tensors to the byte, for sanitizers to see every step outside; outputs consist of NaN until they are written.

#ifdef METAL
#include "kernels.metal"
#undef device
#undef constant
#undef kernel
#else
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
        : name(name), kernel(reinterpret_cast<Any>(kernel)), call(::call<A...>) {}

    const char *name;
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
    BOTH(gate),
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

// Whole blocks, as a device runs them, and at least one thread more than there is work for.
static void launch(const Entry &entry, void **arguments, unsigned threads) {
    const unsigned all = (threads / BLOCK + 1) * BLOCK;
    if (!strstr(entry.name, "hardball")) {
        for (unsigned thread = 0; thread < all; thread++) entry.call(entry.kernel, arguments, thread);
        return;
    }
    for (unsigned first = 0; first < all; first += host::Warp::LANES) {
        host::warp().run([&](unsigned lane) { entry.call(entry.kernel, arguments, first + lane); });
    }
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
    arguments.push_back(nullptr);
    launch(entry_of(name), arguments.data(), threads);
    fwrite(pointers.back(), 1, output_bytes, stdout);
    fflush(stdout);
    for (void *pointer : pointers) free(pointer);
    return true;
}

int main() {
    while (answer()) {
    }
}
