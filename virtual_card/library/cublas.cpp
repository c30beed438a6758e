// cuBLAS and cuBLASLt: handles, and products that launch and compute nothing.
//
// The workspaces of products are PyTorch's own, and so in its books. The library's own memory comes with its first handle.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>

#include "api.h"
#include "books.h"
#include "devices.h"
#include "errors.h"
#include "kernels.h"

using namespace virtual_card;

namespace {

enum Status : int { SUCCESS = 0, NOT_READY_YET = 1, ALLOCATION_FAILED = 3, INVALID = 7, EXECUTION_FAILED = 13 };

struct Handle {
    void *stream = nullptr;
    int pointer_mode = 0, math_mode = 0;
};

std::atomic<bool> loaded[MOST_CARDS];

int load_library() {
    const int device = current_device();
    if (loaded[device].exchange(true)) return SUCCESS;
    if (take(card_of(device), spec_of(device).matrix_library_bytes, false)) return SUCCESS;
    loaded[device] = false;
    return ALLOCATION_FAILED;
}

int product(const char *name, void *stream) {
    return launch_library(name, stream) ? EXECUTION_FAILED : SUCCESS;
}

}  // namespace

EXPORT int cublasCreate_v2(Handle **out) {
    if (int error = use_current()) return error == OUT_OF_MEMORY ? ALLOCATION_FAILED : NOT_READY_YET;
    if (int error = load_library()) return error;
    *out = new Handle;
    return SUCCESS;
}
EXPORT int cublasDestroy_v2(Handle *handle) {
    delete handle;
    return SUCCESS;
}
EXPORT int cublasSetStream_v2(Handle *handle, void *stream) {
    handle->stream = stream;
    return SUCCESS;
}
EXPORT int cublasGetStream_v2(Handle *handle, void **stream) {
    *stream = handle->stream;
    return SUCCESS;
}
EXPORT int cublasSetPointerMode_v2(Handle *handle, int mode) {
    handle->pointer_mode = mode;
    return SUCCESS;
}
EXPORT int cublasGetPointerMode_v2(Handle *handle, int *mode) {
    *mode = handle->pointer_mode;
    return SUCCESS;
}
EXPORT int cublasSetMathMode(Handle *handle, int mode) {
    handle->math_mode = mode;
    return SUCCESS;
}
EXPORT int cublasGetMathMode(Handle *handle, int *mode) {
    *mode = handle->math_mode;
    return SUCCESS;
}
EXPORT int cublasSetWorkspace_v2(Handle *, void *, size_t) {
    return SUCCESS;
}
EXPORT int cublasSetSmCountTarget(Handle *, int) {
    return SUCCESS;
}

// What the arguments are does not matter: the first is the handle.
#define PRODUCT(name)                          \
    EXPORT int name(Handle *handle, ...) {     \
        return product(#name, handle->stream); \
    }
PRODUCT(cublasSgemm_v2)
PRODUCT(cublasDgemm_v2)
PRODUCT(cublasCgemm_v2)
PRODUCT(cublasZgemm_v2)
PRODUCT(cublasGemmEx)
PRODUCT(cublasSgemmEx)
PRODUCT(cublasSgemmStridedBatched)
PRODUCT(cublasDgemmStridedBatched)
PRODUCT(cublasCgemmStridedBatched)
PRODUCT(cublasZgemmStridedBatched)
PRODUCT(cublasGemmStridedBatchedEx)
PRODUCT(cublasSgemmBatched)
PRODUCT(cublasDgemmBatched)
PRODUCT(cublasSgemv_v2)
PRODUCT(cublasDgemv_v2)

namespace {

// A description of anything: nothing here reads it again but a preference's workspace.
struct Description {
    uint64_t workspace_bytes = 0;
};

constexpr int MAX_WORKSPACE_BYTES = 1;  // CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES

// cublasLtMatmulHeuristicResult_t
struct HeuristicResult {
    uint64_t algorithm[8];
    size_t workspace_bytes;
    int state;
    float waves;
    int reserved[4];
};

int describe(Description **out) {
    *out = new Description;
    return SUCCESS;
}
int forget(Description *description) {
    delete description;
    return SUCCESS;
}

}  // namespace

EXPORT size_t cublasLtGetVersion() {
    return VIRTUAL_CARD_CUDA_MAJOR * 10000;
}
EXPORT int cublasLtMatmulDescCreate(Description **out, int, int) {
    return describe(out);
}
EXPORT int cublasLtMatmulDescDestroy(Description *description) {
    return forget(description);
}
EXPORT int cublasLtMatmulDescSetAttribute(Description *, int, const void *, size_t) {
    return SUCCESS;
}
EXPORT int cublasLtMatrixLayoutCreate(Description **out, int, uint64_t, uint64_t, int64_t) {
    return describe(out);
}
EXPORT int cublasLtMatrixLayoutDestroy(Description *description) {
    return forget(description);
}
EXPORT int cublasLtMatrixLayoutSetAttribute(Description *, int, const void *, size_t) {
    return SUCCESS;
}
EXPORT int cublasLtMatmulPreferenceCreate(Description **out) {
    return describe(out);
}
EXPORT int cublasLtMatmulPreferenceDestroy(Description *description) {
    return forget(description);
}
EXPORT int cublasLtMatmulPreferenceSetAttribute(Description *preference, int attribute, const void *value,
                                                size_t size) {
    if (attribute == MAX_WORKSPACE_BYTES && size == sizeof(uint64_t))
        std::memcpy(&preference->workspace_bytes, value, size);
    return SUCCESS;
}
EXPORT int cublasLtMatmulAlgoGetHeuristic(void *, void *, void *, void *, void *, void *, Description *preference,
                                          int wanted, HeuristicResult *out, int *found) {
    if (wanted < 1) return INVALID;
    out[0] = {};
    out[0].workspace_bytes = preference->workspace_bytes;
    out[0].waves = 1;
    *found = 1;
    return SUCCESS;
}
EXPORT int cublasLtMatmul(void *, void *, const void *, const void *, void *, const void *, void *, const void *,
                          const void *, void *, void *, void *, const void *, void *, size_t, void *stream) {
    return product("cublasLtMatmul", stream);
}
