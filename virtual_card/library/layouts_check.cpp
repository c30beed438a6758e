// Compiled by a test where NVIDIA's headers of CUDA 13 are: does layouts.h agree with them?
#include <cuda.h>
#include <driver_types.h>

#include "layouts.h"

#define SAME_SIZE(ours, theirs) static_assert(sizeof(virtual_card::ours) == sizeof(theirs), #ours)
#define SAME_PLACE(ours, theirs, member) \
    static_assert(offsetof(virtual_card::ours, member) == offsetof(theirs, member), #ours "." #member)

SAME_SIZE(DeviceProperties, cudaDeviceProp);
#define PROPERTY(member) SAME_PLACE(DeviceProperties, cudaDeviceProp, member)
PROPERTY(uuid);
PROPERTY(totalGlobalMem);
PROPERTY(sharedMemPerBlock);
PROPERTY(regsPerBlock);
PROPERTY(memPitch);
PROPERTY(maxThreadsDim);
PROPERTY(totalConstMem);
PROPERTY(major);
PROPERTY(textureAlignment);
PROPERTY(multiProcessorCount);
PROPERTY(integrated);
PROPERTY(surfaceAlignment);
PROPERTY(pciBusID);
PROPERTY(asyncEngineCount);
PROPERTY(memoryBusWidth);
PROPERTY(l2CacheSize);
PROPERTY(maxThreadsPerMultiProcessor);
PROPERTY(sharedMemPerMultiprocessor);
PROPERTY(regsPerMultiprocessor);
PROPERTY(managedMemory);
PROPERTY(cooperativeLaunch);
PROPERTY(sharedMemPerBlockOptin);
PROPERTY(maxBlocksPerMultiProcessor);
PROPERTY(reservedSharedMemPerBlock);
PROPERTY(hostRegisterSupported);
PROPERTY(memoryPoolsSupported);
PROPERTY(clusterLaunch);
PROPERTY(mpsEnabled);
PROPERTY(gpuPciDeviceID);
PROPERTY(reserved);

SAME_SIZE(PointerAttributes, cudaPointerAttributes);
SAME_PLACE(PointerAttributes, cudaPointerAttributes, hostPointer);

SAME_SIZE(FunctionAttributes, cudaFuncAttributes);
SAME_PLACE(FunctionAttributes, cudaFuncAttributes, maxDynamicSharedSizeBytes);
SAME_PLACE(FunctionAttributes, cudaFuncAttributes, preferredShmemCarveout);
SAME_PLACE(FunctionAttributes, cudaFuncAttributes, reserved);

SAME_SIZE(LaunchConfiguration, cudaLaunchConfig_t);
SAME_PLACE(LaunchConfiguration, cudaLaunchConfig_t, dynamicSmemBytes);
SAME_PLACE(LaunchConfiguration, cudaLaunchConfig_t, stream);

SAME_SIZE(DriverLaunchConfiguration, CUlaunchConfig);
SAME_PLACE(DriverLaunchConfiguration, CUlaunchConfig, sharedMemBytes);
SAME_PLACE(DriverLaunchConfiguration, CUlaunchConfig, hStream);

SAME_SIZE(AllocationProperties, CUmemAllocationProp);
static_assert(offsetof(virtual_card::AllocationProperties, locationId) == offsetof(CUmemAllocationProp, location.id));
