#include "abi/call.h"

namespace {

struct ErrorText {
  cudaError_t code;
  const char* name;
  const char* text;
};

// Every code of driver_types.h (CUDA 13.0). Codes that this library never returns are described by their
// names.
#define DESCRIBED(code, text) \
  { code, #code, text }
#define NAMED(code) \
  { code, #code, #code }
constexpr ErrorText kErrors[] = {
    DESCRIBED(cudaSuccess, "no error"),
    DESCRIBED(cudaErrorInvalidValue, "invalid argument"),
    DESCRIBED(cudaErrorMemoryAllocation, "out of memory"),
    DESCRIBED(cudaErrorInitializationError, "initialization error"),
    DESCRIBED(cudaErrorCudartUnloading, "driver shutting down"),
    DESCRIBED(cudaErrorProfilerDisabled, "profiler disabled while using external profiling tool"),
    NAMED(cudaErrorProfilerNotInitialized),
    NAMED(cudaErrorProfilerAlreadyStarted),
    NAMED(cudaErrorProfilerAlreadyStopped),
    DESCRIBED(cudaErrorInvalidConfiguration, "invalid configuration argument"),
    DESCRIBED(cudaErrorInvalidPitchValue, "invalid pitch argument"),
    DESCRIBED(cudaErrorInvalidSymbol, "invalid device symbol"),
    DESCRIBED(cudaErrorInvalidHostPointer, "invalid host pointer"),
    DESCRIBED(cudaErrorInvalidDevicePointer, "invalid device pointer"),
    DESCRIBED(cudaErrorInvalidTexture, "invalid texture reference"),
    NAMED(cudaErrorInvalidTextureBinding),
    DESCRIBED(cudaErrorInvalidChannelDescriptor, "invalid channel descriptor"),
    DESCRIBED(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy"),
    NAMED(cudaErrorAddressOfConstant),
    NAMED(cudaErrorTextureFetchFailed),
    NAMED(cudaErrorTextureNotBound),
    NAMED(cudaErrorSynchronizationError),
    NAMED(cudaErrorInvalidFilterSetting),
    NAMED(cudaErrorInvalidNormSetting),
    NAMED(cudaErrorMixedDeviceExecution),
    DESCRIBED(cudaErrorNotYetImplemented, "feature not yet implemented"),
    NAMED(cudaErrorMemoryValueTooLarge),
    NAMED(cudaErrorStubLibrary),
    DESCRIBED(cudaErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime version"),
    NAMED(cudaErrorCallRequiresNewerDriver),
    DESCRIBED(cudaErrorInvalidSurface, "invalid surface reference"),
    NAMED(cudaErrorDuplicateVariableName),
    NAMED(cudaErrorDuplicateTextureName),
    NAMED(cudaErrorDuplicateSurfaceName),
    DESCRIBED(cudaErrorDevicesUnavailable, "CUDA-capable device(s) is/are busy or unavailable"),
    NAMED(cudaErrorIncompatibleDriverContext),
    DESCRIBED(cudaErrorMissingConfiguration, "__global__ function call is not configured"),
    DESCRIBED(cudaErrorPriorLaunchFailure, "unspecified launch failure in prior launch"),
    NAMED(cudaErrorLaunchMaxDepthExceeded),
    NAMED(cudaErrorLaunchFileScopedTex),
    NAMED(cudaErrorLaunchFileScopedSurf),
    NAMED(cudaErrorSyncDepthExceeded),
    NAMED(cudaErrorLaunchPendingCountExceeded),
    DESCRIBED(cudaErrorInvalidDeviceFunction, "invalid device function"),
    DESCRIBED(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    DESCRIBED(cudaErrorInvalidDevice, "invalid device ordinal"),
    NAMED(cudaErrorDeviceNotLicensed),
    NAMED(cudaErrorSoftwareValidityNotEstablished),
    DESCRIBED(cudaErrorStartupFailure, "startup failure in cuda runtime"),
    DESCRIBED(cudaErrorInvalidKernelImage, "device kernel image is invalid"),
    DESCRIBED(cudaErrorDeviceUninitialized, "invalid device context"),
    NAMED(cudaErrorMapBufferObjectFailed),
    NAMED(cudaErrorUnmapBufferObjectFailed),
    NAMED(cudaErrorArrayIsMapped),
    DESCRIBED(cudaErrorAlreadyMapped, "resource already mapped"),
    DESCRIBED(cudaErrorNoKernelImageForDevice, "no kernel image is available for execution on the device"),
    NAMED(cudaErrorAlreadyAcquired),
    DESCRIBED(cudaErrorNotMapped, "resource not mapped"),
    NAMED(cudaErrorNotMappedAsArray),
    NAMED(cudaErrorNotMappedAsPointer),
    DESCRIBED(cudaErrorECCUncorrectable, "uncorrectable ECC error encountered"),
    DESCRIBED(cudaErrorUnsupportedLimit, "limit is not supported on this architecture"),
    DESCRIBED(cudaErrorDeviceAlreadyInUse, "exclusive-thread device already in use by a different thread"),
    DESCRIBED(cudaErrorPeerAccessUnsupported, "peer access is not supported between these two devices"),
    DESCRIBED(cudaErrorInvalidPtx, "a PTX JIT compilation failed"),
    NAMED(cudaErrorInvalidGraphicsContext),
    NAMED(cudaErrorNvlinkUncorrectable),
    DESCRIBED(cudaErrorJitCompilerNotFound, "PTX JIT compiler library not found"),
    DESCRIBED(cudaErrorUnsupportedPtxVersion, "the provided PTX was compiled with an unsupported toolchain."),
    NAMED(cudaErrorJitCompilationDisabled),
    NAMED(cudaErrorUnsupportedExecAffinity),
    NAMED(cudaErrorUnsupportedDevSideSync),
    NAMED(cudaErrorContained),
    DESCRIBED(cudaErrorInvalidSource, "device kernel image is invalid"),
    DESCRIBED(cudaErrorFileNotFound, "file not found"),
    DESCRIBED(cudaErrorSharedObjectSymbolNotFound, "shared object symbol not found"),
    DESCRIBED(cudaErrorSharedObjectInitFailed, "shared object initialization failed"),
    DESCRIBED(cudaErrorOperatingSystem, "OS call failed or operation not supported on this OS"),
    DESCRIBED(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    DESCRIBED(cudaErrorIllegalState, "the operation cannot be performed in the present state"),
    NAMED(cudaErrorLossyQuery),
    DESCRIBED(cudaErrorSymbolNotFound, "named symbol not found"),
    DESCRIBED(cudaErrorNotReady, "device not ready"),
    DESCRIBED(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    DESCRIBED(cudaErrorLaunchOutOfResources, "too many resources requested for launch"),
    DESCRIBED(cudaErrorLaunchTimeout, "the launch timed out and was terminated"),
    NAMED(cudaErrorLaunchIncompatibleTexturing),
    DESCRIBED(cudaErrorPeerAccessAlreadyEnabled, "peer access is already enabled"),
    DESCRIBED(cudaErrorPeerAccessNotEnabled, "peer access has not been enabled"),
    DESCRIBED(cudaErrorSetOnActiveProcess, "cannot set while device is active in this process"),
    DESCRIBED(cudaErrorContextIsDestroyed, "context is destroyed"),
    DESCRIBED(cudaErrorAssert, "device-side assert triggered"),
    DESCRIBED(cudaErrorTooManyPeers, "peer mapping resources exhausted"),
    DESCRIBED(cudaErrorHostMemoryAlreadyRegistered,
              "part or all of the requested memory range is already mapped"),
    DESCRIBED(cudaErrorHostMemoryNotRegistered, "pointer does not correspond to a registered memory region"),
    DESCRIBED(cudaErrorHardwareStackError, "hardware stack error"),
    DESCRIBED(cudaErrorIllegalInstruction, "an illegal instruction was encountered"),
    DESCRIBED(cudaErrorMisalignedAddress, "misaligned address"),
    DESCRIBED(cudaErrorInvalidAddressSpace, "operation not supported on global/shared address space"),
    DESCRIBED(cudaErrorInvalidPc, "invalid program counter"),
    DESCRIBED(cudaErrorLaunchFailure, "unspecified launch failure"),
    DESCRIBED(cudaErrorCooperativeLaunchTooLarge, "too many blocks in cooperative launch"),
    NAMED(cudaErrorTensorMemoryLeak),
    DESCRIBED(cudaErrorNotPermitted, "operation not permitted"),
    DESCRIBED(cudaErrorNotSupported, "operation not supported"),
    DESCRIBED(cudaErrorSystemNotReady, "system not yet initialized"),
    DESCRIBED(cudaErrorSystemDriverMismatch,
              "system has unsupported display driver / cuda driver combination"),
    NAMED(cudaErrorCompatNotSupportedOnDevice),
    NAMED(cudaErrorMpsConnectionFailed),
    NAMED(cudaErrorMpsRpcFailure),
    NAMED(cudaErrorMpsServerNotReady),
    NAMED(cudaErrorMpsMaxClientsReached),
    NAMED(cudaErrorMpsMaxConnectionsReached),
    NAMED(cudaErrorMpsClientTerminated),
    NAMED(cudaErrorCdpNotSupported),
    NAMED(cudaErrorCdpVersionMismatch),
    DESCRIBED(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"),
    DESCRIBED(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture"),
    DESCRIBED(cudaErrorStreamCaptureMerge, "operation would result in a merge of separate capture sequences"),
    DESCRIBED(cudaErrorStreamCaptureUnmatched, "capture was not ended in the same stream as it began"),
    DESCRIBED(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work"),
    DESCRIBED(cudaErrorStreamCaptureIsolation, "dependency created on uncaptured work in another stream"),
    DESCRIBED(cudaErrorStreamCaptureImplicit,
              "operation would make the legacy stream depend on a capturing blocking stream"),
    DESCRIBED(cudaErrorCapturedEvent,
              "operation not permitted on an event last recorded in a capturing stream"),
    DESCRIBED(cudaErrorStreamCaptureWrongThread,
              "attempt to terminate a thread-local capture sequence from another thread"),
    DESCRIBED(cudaErrorTimeout, "wait operation timed out"),
    DESCRIBED(cudaErrorGraphExecUpdateFailure,
              "the graph update was not performed because it included changes which violated constraints "
              "specific to instantiated graph update"),
    NAMED(cudaErrorExternalDevice),
    DESCRIBED(cudaErrorInvalidClusterSize, "invalid cluster size"),
    NAMED(cudaErrorFunctionNotLoaded),
    NAMED(cudaErrorInvalidResourceType),
    NAMED(cudaErrorInvalidResourceConfiguration),
    DESCRIBED(cudaErrorUnknown, "unknown error"),
    NAMED(cudaErrorApiFailureBase),
};
#undef DESCRIBED
#undef NAMED

const ErrorText* find(cudaError_t code) {
  for (const ErrorText& error : kErrors) {
    if (error.code == code) return &error;
  }
  return nullptr;
}

}  // namespace

const char* cudaGetErrorName(cudaError_t code) {
  const ErrorText* error = find(code);
  return error ? error->name : "unrecognized error code";
}

const char* cudaGetErrorString(cudaError_t code) {
  const ErrorText* error = find(code);
  return error ? error->text : "unrecognized error code";
}
