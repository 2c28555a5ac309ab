#include <cstdio>
#include <cstring>

#include "abi/call.h"
#include "abi/device.h"
#include "abi/memory_calls.h"
#include "memory/device_memory.h"

// Plausible values of an H100 SXM5 or A100 SXM4; textures and surfaces carry their limits although arrays are
// not implemented.

using namespace emulator::abi;
using emulator::DeviceMemory;

namespace {

void fill_compute(cudaDeviceProp& p) {
  const DeviceModel& device = device_model();
  p.totalGlobalMem = DeviceMemory::instance().capacity();
  p.sharedMemPerBlock = device.shared_per_block;
  p.sharedMemPerBlockOptin = device.shared_per_block_optin;
  p.sharedMemPerMultiprocessor = device.shared_per_multiprocessor;
  p.reservedSharedMemPerBlock = device.reserved_shared_per_block;
  p.regsPerBlock = p.regsPerMultiprocessor = kRegistersPerMultiprocessor;
  p.warpSize = kWarp;
  p.memPitch = 2147483647;
  p.maxThreadsPerBlock = kMaxThreadsPerBlock;
  p.maxThreadsPerMultiProcessor = kMaxThreadsPerMultiprocessor;
  p.maxBlocksPerMultiProcessor = device.max_blocks_per_multiprocessor;
  for (int axis = 0; axis < 3; ++axis) {
    p.maxThreadsDim[axis] = static_cast<int>(kMaxBlock[axis]);
    p.maxGridSize[axis] = static_cast<int>(kMaxGrid[axis]);
  }
  p.totalConstMem = 65536;
  p.major = device.major;
  p.minor = device.minor;
  p.multiProcessorCount = device.multiprocessors;
  p.memoryBusWidth = device.memory_bus_bits;
  p.l2CacheSize = device.l2_bytes;
  p.persistingL2CacheMaxSize = device.persisting_l2_bytes;
  p.accessPolicyMaxWindowSize = 134213632;
}

void fill_features(cudaDeviceProp& p) {
  p.canMapHostMemory = p.concurrentKernels = p.ECCEnabled = p.unifiedAddressing =
      p.streamPrioritiesSupported = 1;
  p.globalL1CacheSupported = p.localL1CacheSupported = p.managedMemory = p.concurrentManagedAccess =
      p.computePreemptionSupported = 1;
  p.canUseHostPointerForRegisteredMem = p.cooperativeLaunch = p.hostRegisterSupported =
      p.memoryPoolsSupported = 1;
  p.unifiedFunctionPointers = 1;
  p.clusterLaunch = device_model().major >= 9;
  p.asyncEngineCount = 3;
  p.pciBusID = 1;
  p.hostNumaId = -1;
  p.deviceNumaId = -1;
}

void fill_textures(cudaDeviceProp& p) {
  const auto set2 = [](int(&to)[2], int a, int b) { to[0] = a, to[1] = b; };
  const auto set3 = [](int(&to)[3], int a, int b, int c) { to[0] = a, to[1] = b, to[2] = c; };
  p.textureAlignment = p.surfaceAlignment = 512;
  p.texturePitchAlignment = 32;
  p.maxTexture1D = 131072;
  p.maxTexture1DMipmap = 32768;
  set2(p.maxTexture2D, 131072, 65536);
  set2(p.maxTexture2DMipmap, 32768, 32768);
  set3(p.maxTexture2DLinear, 131072, 65000, 2097120);
  set2(p.maxTexture2DGather, 32768, 32768);
  set3(p.maxTexture3D, 16384, 16384, 16384);
  set3(p.maxTexture3DAlt, 8192, 8192, 32768);
  p.maxTextureCubemap = 32768;
  set2(p.maxTexture1DLayered, 32768, 2048);
  set3(p.maxTexture2DLayered, 32768, 32768, 2048);
  set2(p.maxTextureCubemapLayered, 32768, 2046);
  p.maxSurface1D = 32768;
  set2(p.maxSurface2D, 131072, 65536);
  set3(p.maxSurface3D, 16384, 16384, 16384);
  set2(p.maxSurface1DLayered, 32768, 2048);
  set3(p.maxSurface2DLayered, 32768, 32768, 2048);
  p.maxSurfaceCubemap = 32768;
  set2(p.maxSurfaceCubemapLayered, 32768, 2046);
}

cudaDeviceProp make_properties() {
  cudaDeviceProp p{};
  std::snprintf(p.name, sizeof p.name, "%s", device_model().name);
  std::memcpy(p.uuid.bytes, "cuda_emulator  0", 16);
  fill_compute(p);
  fill_features(p);
  fill_textures(p);
  return p;
}

/// Attributes that equal a member of cudaDeviceProp. False: none of these.
bool from_compute_properties(const cudaDeviceProp& p, cudaDeviceAttr attribute, int& value) {
  const auto at = [&value](auto number) {
    value = static_cast<int>(number);
    return true;
  };
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      return at(p.maxThreadsPerBlock);
    case cudaDevAttrMaxBlockDimX:
      return at(p.maxThreadsDim[0]);
    case cudaDevAttrMaxBlockDimY:
      return at(p.maxThreadsDim[1]);
    case cudaDevAttrMaxBlockDimZ:
      return at(p.maxThreadsDim[2]);
    case cudaDevAttrMaxGridDimX:
      return at(p.maxGridSize[0]);
    case cudaDevAttrMaxGridDimY:
      return at(p.maxGridSize[1]);
    case cudaDevAttrMaxGridDimZ:
      return at(p.maxGridSize[2]);
    case cudaDevAttrMaxSharedMemoryPerBlock:
      return at(p.sharedMemPerBlock);
    case cudaDevAttrTotalConstantMemory:
      return at(p.totalConstMem);
    case cudaDevAttrWarpSize:
      return at(p.warpSize);
    case cudaDevAttrMaxPitch:
      return at(p.memPitch);
    case cudaDevAttrMaxRegistersPerBlock:
      return at(p.regsPerBlock);
    case cudaDevAttrMultiProcessorCount:
      return at(p.multiProcessorCount);
    case cudaDevAttrGlobalMemoryBusWidth:
      return at(p.memoryBusWidth);
    case cudaDevAttrL2CacheSize:
      return at(p.l2CacheSize);
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      return at(p.maxThreadsPerMultiProcessor);
    case cudaDevAttrAsyncEngineCount:
      return at(p.asyncEngineCount);
    case cudaDevAttrComputeCapabilityMajor:
      return at(p.major);
    case cudaDevAttrComputeCapabilityMinor:
      return at(p.minor);
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      return at(p.sharedMemPerMultiprocessor);
    case cudaDevAttrMaxRegistersPerMultiprocessor:
      return at(p.regsPerMultiprocessor);
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      return at(p.sharedMemPerBlockOptin);
    case cudaDevAttrMaxBlocksPerMultiprocessor:
      return at(p.maxBlocksPerMultiProcessor);
    case cudaDevAttrMaxPersistingL2CacheSize:
      return at(p.persistingL2CacheMaxSize);
    case cudaDevAttrMaxAccessPolicyWindowSize:
      return at(p.accessPolicyMaxWindowSize);
    case cudaDevAttrReservedSharedMemoryPerBlock:
      return at(p.reservedSharedMemPerBlock);
    case cudaDevAttrPciBusId:
      return at(p.pciBusID);
    case cudaDevAttrPciDeviceId:
      return at(p.pciDeviceID);
    case cudaDevAttrPciDomainId:
      return at(p.pciDomainID);
    case cudaDevAttrClusterLaunch:
      return at(p.clusterLaunch);
    case cudaDevAttrHostNumaId:
      return at(p.hostNumaId);
    case cudaDevAttrNumaId:
      return at(p.deviceNumaId);
    default:
      return false;
  }
}

bool from_texture_properties(const cudaDeviceProp& p, cudaDeviceAttr attribute, int& value) {
  const auto at = [&value](auto number) {
    value = static_cast<int>(number);
    return true;
  };
  switch (attribute) {
    case cudaDevAttrTextureAlignment:
      return at(p.textureAlignment);
    case cudaDevAttrTexturePitchAlignment:
      return at(p.texturePitchAlignment);
    case cudaDevAttrSurfaceAlignment:
      return at(p.surfaceAlignment);
    case cudaDevAttrMaxTexture1DWidth:
      return at(p.maxTexture1D);
    case cudaDevAttrMaxTexture1DLinearWidth:
      return at(268435456);
    case cudaDevAttrMaxTexture1DMipmappedWidth:
      return at(p.maxTexture1DMipmap);
    case cudaDevAttrMaxTexture2DWidth:
      return at(p.maxTexture2D[0]);
    case cudaDevAttrMaxTexture2DHeight:
      return at(p.maxTexture2D[1]);
    case cudaDevAttrMaxTexture2DMipmappedWidth:
      return at(p.maxTexture2DMipmap[0]);
    case cudaDevAttrMaxTexture2DMipmappedHeight:
      return at(p.maxTexture2DMipmap[1]);
    case cudaDevAttrMaxTexture2DLinearWidth:
      return at(p.maxTexture2DLinear[0]);
    case cudaDevAttrMaxTexture2DLinearHeight:
      return at(p.maxTexture2DLinear[1]);
    case cudaDevAttrMaxTexture2DLinearPitch:
      return at(p.maxTexture2DLinear[2]);
    case cudaDevAttrMaxTexture2DGatherWidth:
      return at(p.maxTexture2DGather[0]);
    case cudaDevAttrMaxTexture2DGatherHeight:
      return at(p.maxTexture2DGather[1]);
    case cudaDevAttrMaxTexture3DWidth:
      return at(p.maxTexture3D[0]);
    case cudaDevAttrMaxTexture3DHeight:
      return at(p.maxTexture3D[1]);
    case cudaDevAttrMaxTexture3DDepth:
      return at(p.maxTexture3D[2]);
    case cudaDevAttrMaxTexture3DWidthAlt:
      return at(p.maxTexture3DAlt[0]);
    case cudaDevAttrMaxTexture3DHeightAlt:
      return at(p.maxTexture3DAlt[1]);
    case cudaDevAttrMaxTexture3DDepthAlt:
      return at(p.maxTexture3DAlt[2]);
    case cudaDevAttrMaxTexture1DLayeredWidth:
      return at(p.maxTexture1DLayered[0]);
    case cudaDevAttrMaxTexture1DLayeredLayers:
      return at(p.maxTexture1DLayered[1]);
    case cudaDevAttrMaxTexture2DLayeredWidth:
      return at(p.maxTexture2DLayered[0]);
    case cudaDevAttrMaxTexture2DLayeredHeight:
      return at(p.maxTexture2DLayered[1]);
    case cudaDevAttrMaxTexture2DLayeredLayers:
      return at(p.maxTexture2DLayered[2]);
    case cudaDevAttrMaxTextureCubemapWidth:
      return at(p.maxTextureCubemap);
    case cudaDevAttrMaxTextureCubemapLayeredWidth:
      return at(p.maxTextureCubemapLayered[0]);
    case cudaDevAttrMaxTextureCubemapLayeredLayers:
      return at(p.maxTextureCubemapLayered[1]);
    case cudaDevAttrMaxSurface1DWidth:
      return at(p.maxSurface1D);
    case cudaDevAttrMaxSurface2DWidth:
      return at(p.maxSurface2D[0]);
    case cudaDevAttrMaxSurface2DHeight:
      return at(p.maxSurface2D[1]);
    case cudaDevAttrMaxSurface3DWidth:
      return at(p.maxSurface3D[0]);
    case cudaDevAttrMaxSurface3DHeight:
      return at(p.maxSurface3D[1]);
    case cudaDevAttrMaxSurface3DDepth:
      return at(p.maxSurface3D[2]);
    case cudaDevAttrMaxSurface1DLayeredWidth:
      return at(p.maxSurface1DLayered[0]);
    case cudaDevAttrMaxSurface1DLayeredLayers:
      return at(p.maxSurface1DLayered[1]);
    case cudaDevAttrMaxSurface2DLayeredWidth:
      return at(p.maxSurface2DLayered[0]);
    case cudaDevAttrMaxSurface2DLayeredHeight:
      return at(p.maxSurface2DLayered[1]);
    case cudaDevAttrMaxSurface2DLayeredLayers:
      return at(p.maxSurface2DLayered[2]);
    case cudaDevAttrMaxSurfaceCubemapWidth:
      return at(p.maxSurfaceCubemap);
    case cudaDevAttrMaxSurfaceCubemapLayeredWidth:
      return at(p.maxSurfaceCubemapLayered[0]);
    case cudaDevAttrMaxSurfaceCubemapLayeredLayers:
      return at(p.maxSurfaceCubemapLayered[1]);
    default:
      return false;
  }
}

/// Attributes that are flags, or have no member.
int other_attribute(cudaDeviceAttr attribute) {
  switch (attribute) {
    case cudaDevAttrClockRate:
      return device_model().clock_khz;
    case cudaDevAttrMemoryClockRate:
      return device_model().memory_clock_khz;
    case cudaDevAttrSingleToDoublePrecisionPerfRatio:
      return 2;
    case cudaDevAttrMemSyncDomainCount:
      return device_model().major >= 9 ? 4 : 1;
    case cudaDevAttrGpuOverlap:
    case cudaDevAttrCanMapHostMemory:
    case cudaDevAttrConcurrentKernels:
    case cudaDevAttrEccEnabled:
    case cudaDevAttrUnifiedAddressing:
    case cudaDevAttrStreamPrioritiesSupported:
    case cudaDevAttrGlobalL1CacheSupported:
    case cudaDevAttrLocalL1CacheSupported:
    case cudaDevAttrManagedMemory:
    case cudaDevAttrConcurrentManagedAccess:
    case cudaDevAttrComputePreemptionSupported:
    case cudaDevAttrCanUseHostPointerForRegisteredMem:
    case cudaDevAttrCooperativeLaunch:
    case cudaDevAttrHostRegisterSupported:
    case cudaDevAttrMemoryPoolsSupported:
      return 1;
    default:
      return 0;
  }
}

}  // namespace

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  return api("cudaGetDeviceProperties", [&](Lock&) -> cudaError_t {
    EMULATOR_REQUIRE(properties);
    if (device != 0) return cudaErrorInvalidDevice;
    *properties = make_properties();
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  return api("cudaDeviceGetAttribute", [&](Lock&) -> cudaError_t {
    EMULATOR_REQUIRE(value && attribute > 0 && attribute < cudaDevAttrMax);
    if (device != 0) return cudaErrorInvalidDevice;
    const cudaDeviceProp properties = make_properties();
    if (!from_compute_properties(properties, attribute, *value) &&
        !from_texture_properties(properties, attribute, *value))
      *value = other_attribute(attribute);
    return cudaSuccess;
  });
}
