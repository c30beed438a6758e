// CUDA Driver API: memory, copies, addresses apart from memory (which expandable segments use), and pointers.
#include "addresses.h"
#include "api.h"
#include "books.h"
#include "devices.h"
#include "errors.h"
#include "host_memory.h"
#include "layouts.h"
#include "memory.h"
#include "streams.h"

using namespace virtual_card;

EXPORT int cuDevicePrimaryCtxRetain(void **context, int device);

namespace {

using Address = uint64_t;

constexpr int ON_DEVICE = 1, PINNED = 1;  // CU_MEM_LOCATION_TYPE_DEVICE, CU_MEM_ALLOCATION_TYPE_PINNED

void *pointer(Address address) {
    return reinterpret_cast<void *>(address);
}

int copied(void *to, const void *from, size_t size, void *stream) {
    if (int error = put_work(stream)) return error;
    return copy(to, from, size);
}

}  // namespace

EXPORT int cuMemAlloc_v2(Address *out, size_t size) {
    return allocate(out, size);
}
EXPORT int cuMemFree_v2(Address at) {
    return release(at);
}
EXPORT int cuMemGetInfo_v2(size_t *free, size_t *total) {
    if (int error = use_current()) return error;
    *free = free_bytes(card_of(current_device()));
    *total = spec_of(current_device()).total_bytes();
    return broken();
}
EXPORT int cuMemGetAddressRange_v2(Address *begin, size_t *size, Address at) {
    Block block;
    if (!block_of(at, &block)) return NOT_FOUND;
    if (begin) *begin = block.begin;
    if (size) *size = block.size;
    return OK;
}

EXPORT int cuMemcpyHtoD_v2(Address to, const void *from, size_t size) {
    return copy(pointer(to), from, size);
}
EXPORT int cuMemcpyDtoH_v2(void *to, Address from, size_t size) {
    return copy(to, pointer(from), size);
}
EXPORT int cuMemcpyDtoD_v2(Address to, Address from, size_t size) {
    return copy(pointer(to), pointer(from), size);
}
EXPORT int cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t size, void *stream) {
    return copied(pointer(to), from, size, stream);
}
EXPORT int cuMemcpyDtoHAsync_v2(void *to, Address from, size_t size, void *stream) {
    return copied(to, pointer(from), size, stream);
}
EXPORT int cuMemcpyDtoDAsync_v2(Address to, Address from, size_t size, void *stream) {
    return copied(pointer(to), pointer(from), size, stream);
}
EXPORT int cuMemsetD8_v2(Address at, unsigned char byte, size_t size) {
    return fill(pointer(at), byte, size);
}
EXPORT int cuMemsetD32_v2(Address at, unsigned word, size_t count) {
    return fill_words(pointer(at), word, count);
}
EXPORT int cuMemsetD8Async(Address at, unsigned char byte, size_t size, void *stream) {
    if (int error = put_work(stream)) return error;
    return fill(pointer(at), byte, size);
}
EXPORT int cuMemsetD32Async(Address at, unsigned word, size_t count, void *stream) {
    if (int error = put_work(stream)) return error;
    return fill_words(pointer(at), word, count);
}

EXPORT int cuMemGetAllocationGranularity(size_t *size, const AllocationProperties *, int) {
    *size = GRAIN;
    return OK;
}
EXPORT int cuMemAddressReserve(Address *out, size_t size, size_t, Address, unsigned long long) {
    return reserve_addresses(out, size);
}
EXPORT int cuMemAddressFree(Address at, size_t) {
    return release_addresses(at);
}
EXPORT int cuMemCreate(Physical **out, size_t size, const AllocationProperties *properties, unsigned long long) {
    if (properties->locationType != ON_DEVICE) return NOT_SUPPORTED;
    return create_physical(out, size, properties->locationId);
}
EXPORT int cuMemRelease(Physical *physical) {
    return release_physical(physical);
}
EXPORT int cuMemMap(Address at, size_t size, size_t offset, Physical *physical, unsigned long long) {
    return offset ? static_cast<int>(INVALID_VALUE) : map_physical(at, size, physical);
}
EXPORT int cuMemUnmap(Address at, size_t size) {
    return unmap_physical(at, size);
}
EXPORT int cuMemSetAccess(Address, size_t, const void *, size_t) {
    return broken();
}
EXPORT int cuMemRetainAllocationHandle(Physical **out, void *at) {
    Lock lock(process);
    *out = physical_at(reinterpret_cast<uint64_t>(at));
    if (!*out) return INVALID_VALUE;
    (*out)->uses++;
    return OK;
}
EXPORT int cuMemGetAllocationPropertiesFromHandle(AllocationProperties *out, const Physical *physical) {
    *out = {};
    out->type = PINNED;
    out->locationType = ON_DEVICE;
    out->locationId = physical->device;
    return OK;
}
// Memory of one process cannot be opened by another.
EXPORT int cuMemExportToShareableHandle(void *, Physical *, int, unsigned long long) {
    return NOT_SUPPORTED;
}
EXPORT int cuMemImportFromShareableHandle(Physical **, void *, int) {
    return NOT_SUPPORTED;
}

EXPORT int cuPointerGetAttribute(void *out, int attribute, Address at) {
    Block block;
    HostBlock host;
    const bool on_device = block_of(at, &block);
    if (!on_device && !host_block_of(at, &host)) return INVALID_VALUE;
    void *context = nullptr;
    switch (attribute) {
        case 1:
            if (int error = cuDevicePrimaryCtxRetain(&context, on_device ? block.device : 0)) return error;
            *static_cast<void **>(out) = context;
            return OK;
        case 2: *static_cast<unsigned *>(out) = on_device ? 2 : 1; return OK;
        case 3: *static_cast<Address *>(out) = at; return OK;
        case 4:
            if (on_device) return INVALID_VALUE;
            *static_cast<Address *>(out) = at;
            return OK;
        case 6:
        case 8:
        case 10:
        case 15: *static_cast<unsigned *>(out) = 0; return OK;
        case 7: *static_cast<Address *>(out) = on_device ? block.begin : host.begin; return OK;
        case 9: *static_cast<int *>(out) = on_device ? block.device : 0; return OK;
        case 11: *static_cast<Address *>(out) = on_device ? block.begin : host.begin; return OK;
        case 12: *static_cast<size_t *>(out) = on_device ? block.size : host.size; return OK;
        case 13: *static_cast<unsigned *>(out) = 1; return OK;
        default: return NOT_SUPPORTED;
    }
}
EXPORT int cuPointerGetAttributes(unsigned count, const int *attributes, void **out, Address at) {
    // What has no answer is zero; it is no error.
    for (unsigned i = 0; i < count; i++)
        if (cuPointerGetAttribute(out[i], attributes[i], at)) *static_cast<Address *>(out[i]) = 0;
    return OK;
}
