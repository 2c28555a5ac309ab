# NVIDIA's libraries that a CUDA build links; the installed package configuration includes this file too.
find_package(CUDAToolkit 13 REQUIRED)
find_library(DINO_CUDNN cudnn HINTS ${CUDAToolkit_LIBRARY_DIR} PATHS /usr/local/cuda/lib64 /usr/lib/x86_64-linux-gnu)
find_path(DINO_CUDNN_INCLUDE cudnn.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
if(NOT DINO_CUDNN OR NOT DINO_CUDNN_INCLUDE)
  message(FATAL_ERROR "cuDNN 9 was not found: -DDINO_CUDNN=…/libcudnn.so -DDINO_CUDNN_INCLUDE=folder of cudnn.h")
endif()
if(NOT TARGET dino_dependency_cudnn)
  add_library(dino_dependency_cudnn UNKNOWN IMPORTED)
  set_target_properties(dino_dependency_cudnn PROPERTIES
    IMPORTED_LOCATION ${DINO_CUDNN}
    INTERFACE_INCLUDE_DIRECTORIES ${DINO_CUDNN_INCLUDE})
endif()
set(DINO_CUDA_DEPENDENCIES CUDA::cudart CUDA::cublasLt dino_dependency_cudnn)
