// CUDA Driver API: versions, devices and contexts. A context stands for its device.
#include <cstdio>
#include <vector>

#include "api.h"
#include "devices.h"
#include "errors.h"
#include "streams.h"

using namespace virtual_card;

namespace {

char contexts[MOST_CARDS];
thread_local std::vector<int> pushed;

void *context_of(int device) {
    return &contexts[device];
}
int device_of(void *context) {
    return static_cast<int>(static_cast<char *>(context) - contexts);
}

int enter(int device) {
    if (int error = use(device)) return error;
    set_current_device(device);
    return OK;
}

}  // namespace

EXPORT int cuInit(unsigned) {
    const int error = unusable();
    // The driver itself is never too old for its own functions.
    return error == INSUFFICIENT_DRIVER ? OK : error;
}
EXPORT int cuDriverGetVersion(int *version) {
    *version = machine().cuda_version;
    return OK;
}
EXPORT int cuGetErrorString(int error, const char **text) {
    *text = error_text(error);
    return OK;
}
EXPORT int cuGetErrorName(int error, const char **name) {
    *name = driver_error_name(error);
    return OK;
}

EXPORT int cuDeviceGetCount(int *count) {
    *count = device_count();
    return OK;
}
EXPORT int cuDeviceGet(int *device, int ordinal) {
    if (!is_device(ordinal)) return INVALID_DEVICE;
    *device = ordinal;
    return OK;
}
EXPORT int cuDeviceGetName(char *text, int length, int device) {
    if (!is_device(device)) return INVALID_DEVICE;
    std::snprintf(text, length, "%s", spec_of(device).name.c_str());
    return OK;
}
EXPORT int cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
    if (!is_device(device)) return INVALID_DEVICE;
    uuid_bytes(spec_of(device).device_uuid(), uuid);
    return OK;
}
EXPORT int cuDeviceGetUuid(unsigned char *uuid, int device) {
    return cuDeviceGetUuid_v2(uuid, device);
}
EXPORT int cuDeviceTotalMem_v2(size_t *bytes, int device) {
    if (!is_device(device)) return INVALID_DEVICE;
    *bytes = spec_of(device).total_bytes();
    return OK;
}
EXPORT int cuDeviceGetAttribute(int *value, int attribute, int device) {
    if (!is_device(device)) return INVALID_DEVICE;
    *value = attribute_of(device, attribute);
    return OK;
}

EXPORT int cuDevicePrimaryCtxRetain(void **context, int device) {
    if (int error = use(device)) return error;
    *context = context_of(device);
    return OK;
}
EXPORT int cuDevicePrimaryCtxRelease_v2(int) {
    return OK;
}
EXPORT int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
    if (!is_device(device)) return INVALID_DEVICE;
    if (flags) *flags = 0;
    if (active) *active = has_context(device);
    return OK;
}
EXPORT int cuCtxGetCurrent(void **context) {
    *context = device_count() && has_context(current_device()) ? context_of(current_device()) : nullptr;
    return OK;
}
EXPORT int cuCtxSetCurrent(void *context) {
    return context ? enter(device_of(context)) : static_cast<int>(OK);
}
EXPORT int cuCtxPushCurrent_v2(void *context) {
    const int before = current_device();
    if (int error = enter(device_of(context))) return error;
    pushed.push_back(before);
    return OK;
}
EXPORT int cuCtxPopCurrent_v2(void **context) {
    if (pushed.empty()) return INVALID_CONTEXT;
    if (context) *context = context_of(current_device());
    set_current_device(pushed.back());
    pushed.pop_back();
    return OK;
}
EXPORT int cuCtxGetDevice(int *device) {
    *device = current_device();
    return device_count() && has_context(current_device()) ? OK : INVALID_CONTEXT;
}
EXPORT int cuCtxSynchronize() {
    return wait_for_all();
}
EXPORT int cuCtxGetLimit(size_t *value, int limit) {
    // Bytes of a thread's stack, of the buffer of printf, of the heap of malloc.
    constexpr size_t VALUES[] = {1024, 1 << 20, 8 << 20};
    if (limit < 0 || limit > 2) return NOT_SUPPORTED;
    *value = VALUES[limit];
    return OK;
}
EXPORT int cuCtxSetLimit(int, size_t) {
    return OK;
}
EXPORT int cuStreamSynchronize(void *stream) {
    return wait_for(stream);
}
