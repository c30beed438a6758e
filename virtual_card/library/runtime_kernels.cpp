// CUDA Runtime API: kernels and variables, as the code that nvcc generates registers and uses them.
#include <algorithm>
#include <unordered_map>
#include <vector>

#include "api.h"
#include "devices.h"
#include "errors.h"
#include "host_memory.h"
#include "kernels.h"
#include "layouts.h"
#include "memory.h"

using namespace virtual_card;

namespace {

constexpr int MAX_DYNAMIC_SHARED = 8;  // cudaFuncAttributeMaxDynamicSharedMemorySize

struct Variable {
    size_t size = 0;
    uint64_t at[MOST_CARDS] = {};
};

auto &kernel_names = *new std::unordered_map<const void *, const char *>;
auto &variables = *new std::unordered_map<const void *, Variable>;
thread_local std::vector<Launch> configurations;

const char *name_of(const void *function) {
    Lock lock(process);
    const auto found = kernel_names.find(function);
    return found == kernel_names.end() ? nullptr : found->second;
}

int started(const void *function, Size3 grid, Size3 block, size_t shared, void *stream) {
    return remember(launch(function, name_of(function), {grid, block, shared, stream}));
}

}  // namespace

EXPORT void **__cudaRegisterFatBinary(void *image) {
    return new void *(image);
}
EXPORT void __cudaRegisterFatBinaryEnd(void **) {}
EXPORT void __cudaUnregisterFatBinary(void **handle) {
    delete handle;
}
EXPORT char __cudaInitModule(void **) {
    return 1;
}
EXPORT void __cudaRegisterFunction(void **, const char *host, char *, const char *name, int, void *, void *, void *,
                                   void *, int *) {
    Lock lock(process);
    kernel_names[host] = name;
}
EXPORT void __cudaRegisterVar(void **, char *host, char *, const char *, int, size_t size, int, int) {
    Lock lock(process);
    variables[host].size = size;
}
EXPORT unsigned __cudaPushCallConfiguration(Size3 grid, Size3 block, size_t shared, void *stream) {
    configurations.push_back({grid, block, shared, stream});
    return OK;
}
EXPORT int __cudaPopCallConfiguration(Size3 *grid, Size3 *block, size_t *shared, void **stream) {
    if (configurations.empty()) return remember(INVALID_CONFIGURATION);
    const Launch last = configurations.back();
    configurations.pop_back();
    *grid = last.grid;
    *block = last.block;
    *shared = last.shared_bytes;
    *stream = last.stream;
    return OK;
}
EXPORT int __cudaGetKernel(const void **kernel, const void *function) {
    *kernel = function;
    return OK;
}
EXPORT int __cudaLaunchKernel(const void *kernel, Size3 grid, Size3 block, void **, size_t shared, void *stream) {
    return started(kernel, grid, block, shared, stream);
}
EXPORT int cudaLaunchKernel(const void *function, Size3 grid, Size3 block, void **, size_t shared, void *stream) {
    return started(function, grid, block, shared, stream);
}
EXPORT int cudaLaunchCooperativeKernel(const void *function, Size3 grid, Size3 block, void **, size_t shared,
                                       void *stream) {
    return started(function, grid, block, shared, stream);
}
EXPORT int cudaLaunchKernelExC(const LaunchConfiguration *how, const void *function, void **) {
    const auto &[gx, gy, gz] = how->gridDim;
    const auto &[bx, by, bz] = how->blockDim;
    return started(function, {gx, gy, gz}, {bx, by, bz}, how->dynamicSmemBytes, how->stream);
}

EXPORT int cudaFuncGetAttributes(FunctionAttributes *out, const void *function) {
    if (int error = use_current()) return remember(error);
    const Card &card = spec_of(current_device());
    *out = {};
    out->maxThreadsPerBlock = 1024;
    out->numRegs = REGISTERS_PER_THREAD;
    out->ptxVersion = out->binaryVersion = card.major * 10 + card.minor;
    out->maxDynamicSharedSizeBytes = shared_limit(function);
    out->preferredShmemCarveout = -1;
    return OK;
}
EXPORT int cudaFuncSetAttribute(const void *function, int attribute, int value) {
    if (int error = use_current()) return remember(error);
    return remember(attribute == MAX_DYNAMIC_SHARED ? set_shared_limit(function, value) : OK);
}
EXPORT int cudaKernelSetAttributeForDevice(const void *function, int attribute, int value, int) {
    return cudaFuncSetAttribute(function, attribute, value);
}
EXPORT int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *, int threads, size_t shared,
                                                                  unsigned) {
    if (int error = use_current()) return remember(error);
    *blocks = resident_blocks(threads, shared);
    return OK;
}
EXPORT int cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *function, int threads,
                                                         size_t shared) {
    return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, threads, shared, 0);
}

EXPORT int cudaGetSymbolAddress(void **out, const void *symbol) {
    if (int error = use_current()) return remember(error);
    Lock lock(process);
    const auto found = variables.find(symbol);
    if (found == variables.end()) return remember(INVALID_SYMBOL);
    uint64_t &at = found->second.at[current_device()];
    if (!at)
        if (int error = allocate(&at, std::max<size_t>(1, found->second.size))) return remember(error);
    *out = reinterpret_cast<void *>(at);
    return OK;
}
EXPORT int cudaMemcpyToSymbol(const void *symbol, const void *from, size_t size, size_t offset, int) {
    void *at = nullptr;
    if (int error = cudaGetSymbolAddress(&at, symbol)) return error;
    return remember(copy(static_cast<char *>(at) + offset, from, size));
}

EXPORT int cudaLibraryLoadData(void **library, const void *, void *, void **, unsigned, void *, void **, unsigned) {
    if (int error = use_current()) return remember(error);
    *library = new char;
    return OK;
}
EXPORT int cudaLibraryGetKernel(void **kernel, void *library, const char *) {
    *kernel = library;
    return OK;
}
EXPORT int cudaLibraryUnload(char *library) {
    delete library;
    return OK;
}
