// CUDA Runtime API: memory of the device and of the host, copies, and pools.
#include <algorithm>
#include <cstring>
#include <map>

#include "api.h"
#include "books.h"
#include "devices.h"
#include "errors.h"
#include "host_memory.h"
#include "layouts.h"
#include "memory.h"
#include "streams.h"

using namespace virtual_card;

namespace {

// Kinds of cudaMemoryType.
constexpr int HOST = 1, DEVICE = 2;

// A pool of stream-ordered memory. All work is complete at once, so what is freed goes back to the card.
struct Pool {
    uint64_t used = 0, most = 0, release_threshold = 0;
    std::map<uint64_t, uint64_t> sizes;
};
Pool (&pools)[MOST_CARDS] = *new Pool[1][MOST_CARDS];

int copied(void *to, const void *from, size_t size, void *stream) {
    if (int error = put_work(stream)) return remember(error);
    return remember(copy(to, from, size));
}

}  // namespace

EXPORT int cudaMalloc(void **out, size_t size) {
    if (int error = begin_synchronous()) return remember(error);
    *out = nullptr;
    if (size == 0) return remember(use_current());
    return remember(allocate(reinterpret_cast<uint64_t *>(out), size));
}
EXPORT int cudaFree(void *at) {
    if (int error = begin_synchronous()) return remember(error);
    if (!at) return remember(use_current());
    return remember(release(reinterpret_cast<uint64_t>(at)));
}
EXPORT int cudaMemGetInfo(size_t *free, size_t *total) {
    if (int error = use_current()) return remember(error);
    if (int error = broken()) return remember(error);
    *free = free_bytes(card_of(current_device()));
    *total = spec_of(current_device()).total_bytes();
    return OK;
}

EXPORT int cudaHostAlloc(void **out, size_t size, unsigned) {
    if (int error = begin_synchronous()) return remember(error);
    return remember(allocate_host(out, size));
}
EXPORT int cudaMallocHost(void **out, size_t size) {
    return cudaHostAlloc(out, size, 0);
}
EXPORT int cudaFreeHost(void *at) {
    return remember(release_host(at));
}
EXPORT int cudaHostRegister(void *at, size_t size, unsigned) {
    return remember(register_host(at, size));
}
EXPORT int cudaHostUnregister(void *at) {
    return remember(unregister_host(at));
}
EXPORT int cudaHostGetDevicePointer(void **device, void *host, unsigned) {
    HostBlock block;
    if (!host_block_of(reinterpret_cast<uint64_t>(host), &block)) return remember(INVALID_VALUE);
    *device = host;
    return OK;
}

EXPORT int cudaPointerGetAttributes(PointerAttributes *out, const void *pointer) {
    *out = {};
    // What is neither memory of a device nor page-locked belongs to no device.
    out->device = -2;
    Block block;
    HostBlock host;
    const auto address = reinterpret_cast<uint64_t>(pointer);
    if (block_of(address, &block)) {
        out->type = DEVICE;
        out->device = block.device;
        out->devicePointer = const_cast<void *>(pointer);
    } else if (host_block_of(address, &host)) {
        out->type = HOST;
        out->device = 0;
        out->devicePointer = out->hostPointer = const_cast<void *>(pointer);
    }
    return OK;
}

EXPORT int cudaMemcpy(void *to, const void *from, size_t size, int) {
    if (int error = wait_for_all()) return remember(error);
    return remember(copy(to, from, size));
}
EXPORT int cudaMemcpyAsync(void *to, const void *from, size_t size, int, void *stream) {
    return copied(to, from, size, stream);
}
EXPORT int cudaMemcpyPeerAsync(void *to, int, const void *from, int, size_t size, void *stream) {
    return copied(to, from, size, stream);
}
EXPORT int cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                             size_t height, int, void *stream) {
    if (int error = put_work(stream)) return remember(error);
    for (size_t row = 0; row < height; row++) {
        char *line = static_cast<char *>(to) + row * to_pitch;
        if (int error = copy(line, static_cast<const char *>(from) + row * from_pitch, width)) return remember(error);
    }
    return OK;
}
EXPORT int cudaMemset(void *at, int byte, size_t size) {
    if (int error = wait_for_all()) return remember(error);
    return remember(fill(at, byte, size));
}
EXPORT int cudaMemsetAsync(void *at, int byte, size_t size, void *stream) {
    if (int error = put_work(stream)) return remember(error);
    return remember(fill(at, byte, size));
}

EXPORT int cudaDeviceGetDefaultMemPool(void **pool, int device) {
    if (!is_device(device)) return remember(INVALID_DEVICE);
    *pool = &pools[device];
    return OK;
}
EXPORT int cudaMallocAsync(void **out, size_t size, void *stream) {
    if (int error = put_work(stream)) return remember(error);
    uint64_t at = 0;
    if (int error = allocate(&at, std::max<size_t>(size, 1))) return remember(error);
    Lock lock(process);
    Pool &pool = pools[current_device()];
    pool.sizes[at] = size;
    pool.used += size;
    pool.most = std::max(pool.most, pool.used);
    *out = reinterpret_cast<void *>(at);
    return OK;
}
EXPORT int cudaFreeAsync(void *at, void *stream) {
    if (int error = put_work(stream)) return remember(error);
    {
        Lock lock(process);
        for (auto &pool : pools) {
            const auto found = pool.sizes.find(reinterpret_cast<uint64_t>(at));
            if (found == pool.sizes.end()) continue;
            pool.used -= found->second;
            pool.sizes.erase(found);
        }
    }
    return remember(release(reinterpret_cast<uint64_t>(at)));
}
EXPORT int cudaMemPoolGetAttribute(Pool *pool, int attribute, void *value) {
    Lock lock(process);
    switch (attribute) {
        case 1:
        case 2:
        case 3: *static_cast<int *>(value) = 1; return OK;  // the rules of reuse
        case 4: *static_cast<uint64_t *>(value) = pool->release_threshold; return OK;
        case 5:
        case 7: *static_cast<uint64_t *>(value) = pool->used; return OK;
        case 6:
        case 8: *static_cast<uint64_t *>(value) = pool->most; return OK;
        default: return remember(INVALID_VALUE);
    }
}
EXPORT int cudaMemPoolSetAttribute(Pool *pool, int attribute, void *value) {
    Lock lock(process);
    if (attribute == 4) pool->release_threshold = *static_cast<uint64_t *>(value);
    // A peak can only be set to zero, which makes it what is in use.
    if (attribute == 6 || attribute == 8) pool->most = pool->used;
    return OK;
}
EXPORT int cudaMemPoolSetAccess(void *, const void *, size_t) {
    return OK;
}
EXPORT int cudaMemPoolTrimTo(void *, size_t) {
    return OK;
}
