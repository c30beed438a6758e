// Structures that callers fill or read, as the documentation of CUDA 13 and NVML describes them. layouts_check.cpp
// compares them with NVIDIA's headers where a machine has them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace virtual_card {

// cudaDeviceProp
struct DeviceProperties {
    char name[256];
    unsigned char uuid[16], luid[8];
    unsigned luidDeviceNodeMask;
    size_t totalGlobalMem, sharedMemPerBlock;
    int regsPerBlock, warpSize;
    size_t memPitch;
    int maxThreadsPerBlock, maxThreadsDim[3], maxGridSize[3];
    size_t totalConstMem;
    int major, minor;
    size_t textureAlignment, texturePitchAlignment;
    int multiProcessorCount, integrated, canMapHostMemory, textureAndSurfaceSizes[38];
    size_t surfaceAlignment;
    int concurrentKernels, ECCEnabled, pciBusID, pciDeviceID, pciDomainID, tccDriver, asyncEngineCount;
    int unifiedAddressing, memoryBusWidth, l2CacheSize, persistingL2CacheMaxSize, maxThreadsPerMultiProcessor;
    int streamPrioritiesSupported, globalL1CacheSupported, localL1CacheSupported;
    size_t sharedMemPerMultiprocessor;
    int regsPerMultiprocessor, managedMemory, isMultiGpuBoard, multiGpuBoardGroupID, hostNativeAtomicSupported;
    int pageableMemoryAccess, concurrentManagedAccess, computePreemptionSupported, canUseHostPointerForRegisteredMem;
    int cooperativeLaunch;
    size_t sharedMemPerBlockOptin;
    int pageableMemoryAccessUsesHostPageTables, directManagedMemAccessFromHost, maxBlocksPerMultiProcessor;
    int accessPolicyMaxWindowSize;
    size_t reservedSharedMemPerBlock;
    int hostRegisterSupported, sparseCudaArraySupported, hostRegisterReadOnlySupported;
    int timelineSemaphoreInteropSupported, memoryPoolsSupported, gpuDirectRDMASupported;
    unsigned gpuDirectRDMAFlushWritesOptions;
    int gpuDirectRDMAWritesOrdering;
    unsigned memoryPoolSupportedHandleTypes;
    int deferredMappingCudaArraySupported, ipcEventSupported, clusterLaunch, unifiedFunctionPointers;
    int deviceNumaConfig, deviceNumaId, mpsEnabled, hostNumaId;
    unsigned gpuPciDeviceID, gpuPciSubsystemID;
    int hostNumaMultinodeIpcSupported, reserved[56];
};

// cudaPointerAttributes
struct PointerAttributes {
    int type, device;
    void *devicePointer, *hostPointer;
    long reserved[8];
};

// cudaFuncAttributes
struct FunctionAttributes {
    size_t sharedSizeBytes, constSizeBytes, localSizeBytes;
    int maxThreadsPerBlock, numRegs, ptxVersion, binaryVersion, cacheModeCA, maxDynamicSharedSizeBytes;
    int preferredShmemCarveout, clusters[6], reserved[16];
};

// cudaLaunchConfig_t
struct LaunchConfiguration {
    unsigned gridDim[3], blockDim[3];
    size_t dynamicSmemBytes;
    void *stream, *attrs;
    unsigned numAttrs;
};

// CUlaunchConfig
struct DriverLaunchConfiguration {
    unsigned gridDimX, gridDimY, gridDimZ, blockDimX, blockDimY, blockDimZ, sharedMemBytes;
    void *hStream, *attrs;
    unsigned numAttrs;
};

// CUmemAllocationProp
struct AllocationProperties {
    int type, requestedHandleTypes, locationType, locationId;
    void *win32HandleMetaData;
    unsigned char allocFlags[8];
};

// nvmlMemory_t, nvmlMemory_v2_t, nvmlProcessInfo_v1_t, nvmlProcessInfo_t, nvmlUtilization_t
struct NvmlMemory {
    unsigned long long total, free, used;
};
struct NvmlMemory2 {
    unsigned version;
    unsigned long long total, reserved, free, used;
};
struct NvmlProcess1 {
    unsigned pid;
    unsigned long long usedGpuMemory;
};
struct NvmlProcess {
    unsigned pid;
    unsigned long long usedGpuMemory;
    unsigned gpuInstanceId, computeInstanceId;
};
struct NvmlUtilization {
    unsigned gpu, memory;
};

// nvmlPciInfo_t
struct NvmlPci {
    char busIdLegacy[16];
    unsigned domain, bus, device, pciDeviceId, pciSubSystemId;
    char busId[32];
};

}  // namespace virtual_card
