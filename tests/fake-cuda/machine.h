// What runs kernels on the host: blocks one after another or side by side, threads that meet as fibers.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace machine {

struct Index {
    unsigned x, y, z;
};

// Where a thread of a kernel is. `number` counts the threads of a block.
struct Place {
    Index thread, block, block_size, grid_size;
    unsigned number;
};
extern thread_local Place here __attribute__((tls_model("initial-exec")));

// What threads of a block hand each other.
extern uint64_t lanes[1024];

inline void place(unsigned number) {
    here.number = number;
    const Index &size = here.block_size;
    if (size.y == 1 && size.z == 1) here.thread = {number, 0, 0};
    else here.thread = {number % size.x, number / size.x % size.y, number / size.x / size.y};
}

// Every thread of the block comes here before any goes on.
void meet();

struct Kernel {
    const char *name;
    void (*run)(void **arguments, unsigned first, unsigned last);
    bool (*check)(void **arguments);
    long launches = 0;
};
void add_kernel(const Kernel &kernel);
Kernel *find_kernel(const std::string &name);

// Runs all blocks. Returns whether threads met.
void launch(Kernel &kernel, Index grid, Index block, void **arguments);

// Runs tasks 0 to count - 1 on all processors.
void in_parallel(size_t count, void (*task)(size_t number, void *data), void *data);

bool is_allocated(const void *at);

}  // namespace machine
