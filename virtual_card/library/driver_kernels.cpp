// CUDA Driver API: modules and kernels, as Triton and code that is compiled at run time load them.
#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <string>

#include "api.h"
#include "devices.h"
#include "errors.h"
#include "host_memory.h"
#include "kernels.h"
#include "layouts.h"
#include "memory.h"
#include "streams.h"

using namespace virtual_card;

namespace {

constexpr size_t GLOBAL_BYTES = 65536;  // of a variable, whose real size is in code that nothing here reads
constexpr int MAX_DYNAMIC_SHARED = 8;   // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES

struct Module {
    std::set<std::string> functions;
    std::map<std::string, uint64_t> globals;
};

// Functions of all modules: a handle is the address of a name.
auto &functions = *new std::set<const void *>;

const char *name_of(const void *function) {
    Lock lock(process);
    return functions.count(function) ? static_cast<const std::string *>(function)->c_str() : nullptr;
}

}  // namespace

EXPORT int cuModuleLoadData(Module **out, const void *) {
    if (int error = use_current()) return error;
    if (int error = broken()) return error;
    *out = new Module;
    return OK;
}
EXPORT int cuModuleLoadDataEx(Module **out, const void *image, unsigned, void *, void **) {
    return cuModuleLoadData(out, image);
}
EXPORT int cuModuleLoadFatBinary(Module **out, const void *image) {
    return cuModuleLoadData(out, image);
}
EXPORT int cuModuleLoad(Module **out, const char *) {
    return cuModuleLoadData(out, nullptr);
}
EXPORT int cuModuleUnload(Module *module) {
    Lock lock(process);
    for (const auto &function : module->functions) functions.erase(&function);
    for (const auto &[name, at] : module->globals) release(at);
    delete module;
    return OK;
}
EXPORT int cuModuleGetFunction(const void **out, Module *module, const char *name) {
    Lock lock(process);
    *out = &*module->functions.insert(name).first;
    functions.insert(*out);
    return OK;
}
EXPORT int cuModuleGetGlobal_v2(uint64_t *out, size_t *size, Module *module, const char *name) {
    Lock lock(process);
    uint64_t &at = module->globals[name];
    if (!at)
        if (int error = allocate(&at, GLOBAL_BYTES)) return error;
    if (out) *out = at;
    if (size) *size = GLOBAL_BYTES;
    return OK;
}

EXPORT int cuFuncGetAttribute(int *value, int attribute, const void *function) {
    if (int error = use_current()) return error;
    const Card &card = spec_of(current_device());
    switch (attribute) {
        case 0: *value = 1024; return OK;  // threads of a block
        case 4: *value = REGISTERS_PER_THREAD; return OK;
        case 5:
        case 6: *value = card.major * 10 + card.minor; return OK;  // versions of the code
        case MAX_DYNAMIC_SHARED: *value = shared_limit(function); return OK;
        case 9: *value = -1; return OK;  // no preference for shared memory
        default: *value = 0; return OK;
    }
}
EXPORT int cuFuncSetAttribute(const void *function, int attribute, int value) {
    if (int error = use_current()) return error;
    return attribute == MAX_DYNAMIC_SHARED ? set_shared_limit(function, value) : static_cast<int>(OK);
}
EXPORT int cuFuncSetCacheConfig(const void *, int) {
    return OK;
}

EXPORT int cuLaunchKernel(const void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                          unsigned bz, unsigned shared, void *stream, void **, void **) {
    return launch(function, name_of(function), {{gx, gy, gz}, {bx, by, bz}, shared, stream});
}
EXPORT int cuLaunchCooperativeKernel(const void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                                     unsigned by, unsigned bz, unsigned shared, void *stream, void **) {
    return launch(function, name_of(function), {{gx, gy, gz}, {bx, by, bz}, shared, stream});
}
EXPORT int cuLaunchKernelEx(const DriverLaunchConfiguration *how, const void *function, void **, void **) {
    const Launch launched = {{how->gridDimX, how->gridDimY, how->gridDimZ},
                             {how->blockDimX, how->blockDimY, how->blockDimZ},
                             how->sharedMemBytes,
                             how->hStream};
    return launch(function, name_of(function), launched);
}
EXPORT int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *, int threads, size_t shared) {
    if (int error = use_current()) return error;
    *blocks = resident_blocks(threads, shared);
    return OK;
}
EXPORT int cuOccupancyMaxActiveClusters(int *clusters, const void *, const void *) {
    if (int error = use_current()) return error;
    *clusters = std::max(1, spec_of(current_device()).multiprocessors / 2);
    return OK;
}
EXPORT int cuTensorMapEncodeTiled(void *map, int, unsigned, void *, const uint64_t *, const uint64_t *,
                                  const unsigned *, const unsigned *, int, int, int, int) {
    std::memset(map, 0, 128);
    return OK;
}
EXPORT int cuStreamWriteValue32_v2(void *stream, uint64_t at, unsigned word, unsigned) {
    if (int error = put_work(stream)) return error;
    return fill_words(reinterpret_cast<void *>(at), word, 1);
}
