// Runs kernels: see machine.h.
#include "machine.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <thread>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace machine {

thread_local Place here;
uint64_t lanes[1024];

static std::map<std::string, Kernel> &kernels() {
    static auto *all = new std::map<std::string, Kernel>;
    return *all;
}
void add_kernel(const Kernel &kernel) { kernels().emplace(kernel.name, kernel); }
Kernel *find_kernel(const std::string &name) {
    auto found = kernels().find(name);
    return found == kernels().end() ? nullptr : &found->second;
}

// A thread of a block, with a stack of its own.
struct Fiber {
    std::vector<char> stack;
    bool done;
#if defined(__x86_64__)
    void *context;
#else
    ucontext_t context;
#endif
};
static std::vector<Fiber> fibers;
static unsigned current;
static bool in_fibers, have_met;
static Kernel *running;
static void **running_arguments;

static void run_current() {
    running->run(running_arguments, current, current + 1);
    fibers[current].done = true;
}

#if defined(__x86_64__)
static void *scheduler;
// Leaves one stack for another: what the called function must keep is on it, and where it goes on.
extern "C" void fake_cuda_switch(void **from, void *to);
asm(".text\n.type fake_cuda_switch, @function\nfake_cuda_switch:\n"
    "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
    "mov %rsp, (%rdi)\nmov %rsi, %rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n");
static void to_scheduler() { fake_cuda_switch(&fibers[current].context, scheduler); }
static void to_fiber() { fake_cuda_switch(&scheduler, fibers[current].context); }
static void entry() {
    run_current();
    to_scheduler();
    abort();
}
static void prepare(Fiber &fiber) {
    auto top = (reinterpret_cast<uintptr_t>(fiber.stack.data()) + fiber.stack.size()) & ~uintptr_t(15);
    void **slot = reinterpret_cast<void **>(top) - 2;
    *slot = reinterpret_cast<void *>(entry);
    for (int i = 0; i < 6; i++) *--slot = nullptr;
    fiber.context = slot;
}
#else
static ucontext_t scheduler;
static void to_scheduler() { swapcontext(&fibers[current].context, &scheduler); }
static void to_fiber() { swapcontext(&scheduler, &fibers[current].context); }
static void prepare(Fiber &fiber) {
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    fiber.context.uc_link = &scheduler;
    makecontext(&fiber.context, run_current, 0);
}
#endif

void meet() {
    if (!in_fibers) {
        fprintf(stderr, "fake CUDA: threads of %s meet in one block and did not in the first\n", running->name);
        abort();
    }
    have_met = true;
    const unsigned self = current;
    to_scheduler();
    place(self);
}

static void block_of_fibers(unsigned threads) {
    if (fibers.size() < threads) fibers.resize(threads);
    for (unsigned i = 0; i < threads; i++) {
        fibers[i].stack.resize(1 << 15);
        fibers[i].done = false;
        prepare(fibers[i]);
    }
    for (unsigned left = threads; left;) {
        for (current = 0; current < threads; current++) {
            if (fibers[current].done) continue;
            to_fiber();
            left -= fibers[current].done;
        }
    }
}

void in_parallel(size_t count, void (*task)(size_t number, void *data), void *data) {
    std::atomic<size_t> next{0};
    auto work = [&] {
        for (size_t number; (number = next++) < count;) task(number, data);
    };
    const size_t others = std::min<size_t>(std::max(1u, std::thread::hardware_concurrency()), count) - (count > 0);
    std::vector<std::thread> threads;
    for (size_t i = 0; i < others; i++) threads.emplace_back(work);
    work();
    for (auto &thread : threads) thread.join();
}

struct Launch {
    Kernel &kernel;
    Index grid, block;
    void **arguments;
    size_t blocks;
};

static void move_to(const Launch &launch, size_t number) {
    const Index &grid = launch.grid;
    const Index block{unsigned(number % grid.x), unsigned(number / grid.x % grid.y), unsigned(number / grid.x / grid.y)};
    here = {{0, 0, 0}, block, launch.block, grid, 0};
}

static const size_t BLOCKS_PER_TASK = 64;

static void run_blocks(size_t task, void *data) {
    const Launch &launch = *static_cast<Launch *>(data);
    const unsigned threads = launch.block.x * launch.block.y * launch.block.z;
    // The first block has run.
    const size_t first = 1 + task * BLOCKS_PER_TASK, last = std::min(launch.blocks, first + BLOCKS_PER_TASK);
    for (size_t number = first; number < last; number++) {
        move_to(launch, number);
        launch.kernel.run(launch.arguments, 0, threads);
    }
}

void launch(Kernel &kernel, Index grid, Index block, void **arguments) {
    Launch launch{kernel, grid, block, arguments, size_t(grid.x) * grid.y * grid.z};
    const unsigned threads = block.x * block.y * block.z;
    running = &kernel;
    running_arguments = arguments;
    // The first block shows whether its threads meet. Kernels whose threads do are run block by block.
    have_met = false;
    in_fibers = true;
    for (size_t number = 0; number < launch.blocks && (number == 0 || have_met); number++) {
        move_to(launch, number);
        block_of_fibers(threads);
    }
    in_fibers = false;
    if (!have_met) in_parallel((launch.blocks - 1 + BLOCKS_PER_TASK - 1) / BLOCKS_PER_TASK, run_blocks, &launch);
}

// For the report at the end.
void for_each_kernel(void (*visit)(const Kernel &)) {
    for (auto &[name, kernel] : kernels()) visit(kernel);
}

}  // namespace machine
