// Kernels, which do nothing: their launches are checked and counted, and what limits them is answered.
#pragma once

#include <cstddef>

namespace virtual_card {

struct Size3 {
    unsigned x, y, z;
};

struct Launch {
    Size3 grid, block;
    size_t shared_bytes;
    void *stream;
};

constexpr int REGISTERS_PER_THREAD = 64;

// `function` is whatever names the kernel; `name` may be null.
int launch(const void *function, const char *name, const Launch &how);
// A launch of a library's own kernel.
int launch_library(const char *name, void *stream);

int set_shared_limit(const void *function, int bytes);
int shared_limit(const void *function);

// Blocks of that many threads and bytes of shared memory that a multiprocessor holds at once.
int resident_blocks(int threads, size_t shared_bytes);

}  // namespace virtual_card
