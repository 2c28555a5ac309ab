# What the library links. The installed package configuration includes this file too, so it must not depend on the
# build tree. Debian 12: libdnnl-dev libhwy-dev libjpeg-dev libwebp-dev libtiff-dev zlib1g-dev.
find_package(Threads REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS CXX)  # oneDNN's own threads are switched off through its run-time
find_package(ZLIB REQUIRED)
find_package(JPEG REQUIRED)
find_package(TIFF REQUIRED)

# Highway and oneDNN install their CMake files in places that differ between versions; header and library do not.
foreach(entry "hwy;hwy/highway.h" "dnnl;dnnl.hpp" "webp;webp/decode.h")
  list(GET entry 0 name)
  list(GET entry 1 header)
  if(NOT TARGET dino_dependency_${name})
    find_library(DINO_${name}_LIBRARY ${name} REQUIRED)
    find_path(DINO_${name}_INCLUDE_DIR ${header} REQUIRED)
    mark_as_advanced(DINO_${name}_LIBRARY DINO_${name}_INCLUDE_DIR)
    add_library(dino_dependency_${name} UNKNOWN IMPORTED)
    set_target_properties(dino_dependency_${name} PROPERTIES
      IMPORTED_LOCATION ${DINO_${name}_LIBRARY}
      INTERFACE_INCLUDE_DIRECTORIES ${DINO_${name}_INCLUDE_DIR})
  endif()
endforeach()

set(DINO_DEPENDENCIES Threads::Threads OpenMP::OpenMP_CXX ZLIB::ZLIB JPEG::JPEG TIFF::TIFF
  dino_dependency_hwy dino_dependency_dnnl dino_dependency_webp)
