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
command -v ccache >/dev/null && launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache -DCMAKE_CUDA_COMPILER_LAUNCHER=ccache)

# test_preset NAME [-DVARIABLE=VALUE...] [CTEST ARGUMENT...]: configures, builds and tests one preset.
test_preset() {
  local preset=$1 settings=()
  shift
  while [[ ${1:-} == -D* ]]; do
    settings+=("$1")
    shift
  done
  cmake --preset "$preset" -DDINO_TESTS=ON -DDINO_BENCH=ON -DDINO_WARNINGS_AS_ERRORS=ON "${launcher[@]}" "${settings[@]}" >/dev/null
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

# The CUDA part, on a GPU if there is one (DINO_REQUIRE_CUDA=1: there must be), else on the emulator.
export PATH=$PATH:/usr/local/cuda/bin
if command -v nvcc >/dev/null; then
  cmake -S tests/cuda_emulator -B build/cuda_emulator -G Ninja -DCMAKE_BUILD_TYPE=Release -DDINO_WARNINGS_AS_ERRORS=ON "${launcher[@]}" >/dev/null
  cmake --build build/cuda_emulator
  ctest --test-dir build/cuda_emulator --output-on-failure -j "$(nproc)"

  emulator=$PWD/build/cuda_emulator/lib
  if [ "${DINO_REQUIRE_CUDA:-0}" != 0 ] || nvidia-smi -L >/dev/null 2>&1; then
    emulator=
  fi
  test_preset cuda -DDINO_CUDA_EMULATOR="$emulator" -R "^cuda/"
  bench/gates.sh  # what can be counted about the kernels must not get worse
else
  echo "nvcc was not found: the CUDA part was neither built nor tested."
fi
