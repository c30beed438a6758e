// CUDA Runtime API: errors, versions and devices.
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "api.h"
#include "books.h"
#include "devices.h"
#include "driver_functions.h"
#include "errors.h"
#include "layouts.h"
#include "streams.h"

using namespace virtual_card;

EXPORT int cudaGetLastError() {
    const int taken = take_last_error();
    return broken() ? broken() : taken;
}
EXPORT int cudaPeekAtLastError() {
    return broken() ? broken() : last_error();
}
EXPORT const char *cudaGetErrorString(int error) {
    return error_text(error);
}
EXPORT const char *cudaGetErrorName(int error) {
    return runtime_error_name(error);
}

EXPORT int cudaRuntimeGetVersion(int *version) {
    *version = VIRTUAL_CARD_CUDA_MAJOR * 1000;
    return OK;
}
EXPORT int cudaDriverGetVersion(int *version) {
    *version = machine().cuda_version;
    return OK;
}

EXPORT int cudaGetDeviceCount(int *count) {
    *count = 0;
    if (int error = unusable()) return remember(error);
    *count = device_count();
    return OK;
}
EXPORT int cudaGetDevice(int *device) {
    if (int error = unusable()) return remember(error);
    *device = current_device();
    return OK;
}
EXPORT int cudaSetDevice(int device) {
    if (int error = use(device)) return remember(error);
    set_current_device(device);
    return remember(broken());
}
EXPORT int cudaDeviceGetAttribute(int *value, int attribute, int device) {
    if (!is_device(device)) return remember(INVALID_DEVICE);
    *value = attribute_of(device, attribute);
    return OK;
}
EXPORT int cudaDeviceGetPCIBusId(char *text, int length, int device) {
    if (!is_device(device)) return remember(INVALID_DEVICE);
    std::snprintf(text, length, "0000:%02X:00.0", card_of(device) + 1);
    return OK;
}
EXPORT int cudaDeviceCanAccessPeer(int *can, int device, int peer) {
    if (!is_device(device) || !is_device(peer)) return remember(INVALID_DEVICE);
    *can = 0;
    return OK;
}
EXPORT int cudaDeviceEnablePeerAccess(int, unsigned) {
    return remember(NOT_SUPPORTED);
}
EXPORT int cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    if (least) *least = 0;
    if (greatest) *greatest = -5;
    return OK;
}
EXPORT int cudaDeviceSynchronize() {
    if (int error = use_current()) return remember(error);
    return remember(wait_for_all());
}

EXPORT int cudaGetDeviceProperties(DeviceProperties *out, int device) {
    if (int error = unusable()) return remember(error);
    if (!is_device(device)) return remember(INVALID_DEVICE);
    const Card &card = spec_of(device);
    const auto attribute = [device](int number) { return attribute_of(device, number); };
    *out = {};
    std::snprintf(out->name, sizeof out->name, "%s", card.name.c_str());
    uuid_bytes(card.device_uuid(), out->uuid);
    out->totalGlobalMem = card.total_bytes();
    out->sharedMemPerBlock = attribute(8);
    out->regsPerBlock = attribute(12);
    out->warpSize = attribute(10);
    out->memPitch = attribute(11);
    out->maxThreadsPerBlock = attribute(1);
    for (int axis = 0; axis < 3; axis++) {
        out->maxThreadsDim[axis] = attribute(2 + axis);
        out->maxGridSize[axis] = attribute(5 + axis);
    }
    out->totalConstMem = attribute(9);
    out->major = card.major;
    out->minor = card.minor;
    out->textureAlignment = attribute(14);
    out->texturePitchAlignment = attribute(51);
    out->multiProcessorCount = card.multiprocessors;
    out->integrated = attribute(18);
    out->canMapHostMemory = attribute(19);
    out->surfaceAlignment = attribute(30);
    out->concurrentKernels = attribute(31);
    out->pciBusID = attribute(33);
    out->asyncEngineCount = attribute(40);
    out->unifiedAddressing = attribute(41);
    out->memoryBusWidth = card.bus_width;
    out->l2CacheSize = card.l2_bytes;
    out->maxThreadsPerMultiProcessor = card.threads_per_multiprocessor;
    out->streamPrioritiesSupported = attribute(78);
    out->globalL1CacheSupported = attribute(79);
    out->localL1CacheSupported = attribute(80);
    out->sharedMemPerMultiprocessor = card.shared_bytes_per_multiprocessor;
    out->regsPerMultiprocessor = attribute(82);
    out->managedMemory = attribute(83);
    out->pageableMemoryAccess = attribute(88);
    out->concurrentManagedAccess = attribute(89);
    out->computePreemptionSupported = attribute(90);
    out->canUseHostPointerForRegisteredMem = attribute(91);
    out->cooperativeLaunch = attribute(95);
    out->sharedMemPerBlockOptin = card.shared_bytes_per_block;
    out->pageableMemoryAccessUsesHostPageTables = attribute(100);
    out->maxBlocksPerMultiProcessor = card.blocks_per_multiprocessor;
    out->reservedSharedMemPerBlock = attribute(111);
    out->hostRegisterSupported = attribute(99);
    out->memoryPoolsSupported = attribute(115);
    out->memoryPoolSupportedHandleTypes = attribute(119);
    out->clusterLaunch = attribute(120);
    return OK;
}

EXPORT int cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned, unsigned long long,
                                            int *status) {
    *function = driver_function(name);
    if (status) *status = *function ? 0 : 1;
    return OK;
}

EXPORT int cudaProfilerStart() {
    return OK;
}
EXPORT int cudaProfilerStop() {
    return OK;
}
