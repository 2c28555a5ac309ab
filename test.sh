#!/usr/bin/env bash
# Builds everything and runs all tests. On a fresh Debian 12 it installs what is missing first.
#   ./test.sh          the release build and its tests
#   ./test.sh --all    also address, undefined-behaviour and thread sanitizers, and the long crash tests
set -euo pipefail
cd "$(dirname "$0")"
source tests/require_packages.sh

all=false
case "${1:-}" in
  "") ;;
  --all) all=true ;;
  *) echo "usage: ./test.sh [--all]" >&2; exit 2 ;;
esac

require_packages "${build_packages[@]}" catch2 libbenchmark-dev

launcher=()
command -v ccache >/dev/null && launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)

# test_preset NAME [CTEST ARGUMENT...]: configures, builds and tests one preset.
test_preset() {
  local preset=$1
  shift
  cmake --preset "$preset" -DDINO_TESTS=ON -DDINO_BENCH=ON -DDINO_WARNINGS_AS_ERRORS=ON "${launcher[@]}" >/dev/null
  cmake --build --preset "$preset"
  ctest --test-dir "build/$preset" --output-on-failure -j "$(nproc)" "$@"
}

if $all; then
  test_preset asan -E consumer
  # Debian's OpenMP run-time and oneDNN are not built for the thread sanitizer: only what uses our own threads runs.
  test_preset tsan -R 'thread_pool|loader'
  export DINO_LONG_TESTS=1
fi
test_preset release

# CUDA programs run on the emulator, with or without a GPU.
if command -v nvcc >/dev/null; then
  cmake -S tests/cuda_emulator -B build/cuda_emulator -G Ninja -DCMAKE_BUILD_TYPE=Release -DDINO_WARNINGS_AS_ERRORS=ON "${launcher[@]}" >/dev/null
  cmake --build build/cuda_emulator
  ctest --test-dir build/cuda_emulator --output-on-failure -j "$(nproc)"
else
  echo "nvcc was not found: the CUDA part was neither built nor tested."
fi
