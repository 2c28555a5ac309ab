#!/usr/bin/env bash
# Counts what can be counted about the kernels without a GPU and compares it with bench/gates.lock: registers, spills and
# resident warps from ptxas; launches, instructions, memory traffic, bank conflicts and tensor-core work from the emulator
# (docs/cuda_without_a_gpu.md) on the shapes of bench/cuda_gates/gate_cases.h. The figures are the same on every machine and in every
# folder with the same compiler.
#   bench/gates.sh            says what differs and what misses bench/gates.goals; 1 if something got worse or misses its goal, or if a
#                             kernel is new or gone
#   bench/gates.sh --update   writes bench/gates.lock anew
#   bench/gates.sh --print    prints the figures
# DINO_BUILD and DINO_EMULATOR are folders of builds to use instead of build/cuda and build/cuda_emulator.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=${1:---check}
case $mode in --check | --update | --print) ;; *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;; esac
build=${DINO_BUILD:-build/cuda} emulator=${DINO_EMULATOR:-build/cuda_emulator}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

quietly() { "$@" > "$work/log" 2>&1 || { cat "$work/log" >&2; exit 2; }; }
[[ -f $emulator/build.ninja ]] || quietly cmake -S tests/cuda_emulator -B "$emulator" -G Ninja -DCMAKE_BUILD_TYPE=Release
[[ -d $emulator/lib ]] || quietly cmake --build "$emulator"
[[ -f $build/build.ninja ]] || quietly cmake --preset cuda -B "$build"
quietly cmake --build "$build" --target count_kernels gates_table

bench/kernel_resources.sh --mangled > "$work/resources.txt" &
resources=$!
LD_LIBRARY_PATH=$emulator/lib CUDA_EMULATOR_ARCH=90 CUDA_EMULATOR_THREADS=1 CUDA_EMULATOR_ORDER=forward CUDA_EMULATOR_CHECK=none \
  CUDA_EMULATOR_COUNTERS="$work/counters.json" "$build/bench/cuda_gates/count_kernels" --useful-flops "$work/useful.txt" ||
  { echo "gates.sh: the kernels do not run on the emulator" >&2; exit 2; }
wait "$resources" || { echo "gates.sh: the kernels do not compile" >&2; exit 2; }

table=$build/bench/cuda_gates/gates_table
{
  cat <<'HEADER'
# What can be counted about the kernels without a GPU; `bench/gates.sh --update` writes this file. Of each kernel:
#   threads          of a block
#   registers        per thread, on A100 / H100 / B200
#   shared           bytes of static shared memory
#   stack, spill     bytes per thread, the most of the three
#   warps            that fit on a multiprocessor of the three, without dynamic shared memory
#   float_atomics    atomic operations on floating-point numbers in its PTX
# and, on the shapes of bench/cuda_gates/gate_cases.h, H100, no caches:
#   launches, instructions (of warps)
#   traffic          bytes of all 32-byte sectors that it moves / bytes that it touches at all
#   conflicts        wavefronts of shared memory / fewest possible
#   dynamic_shared   bytes per block
#   tensor_mflop     what tensor cores do; tensor_useful: the share of it that the op needs
HEADER
  LC_ALL=C "$table" make "$work/counters.json" "$work/resources.txt" "$work/useful.txt"
} > "$work/new.lock"
case $mode in
  --print) cat "$work/new.lock" ;;
  --update) cp "$work/new.lock" bench/gates.lock; echo "bench/gates.lock: $(grep -vc '^#' bench/gates.lock) kernels" ;;
  --check)
    failed=0
    "$table" compare bench/gates.lock "$work/new.lock" || failed=1
    "$table" goals bench/gates.goals "$work/new.lock" || failed=1
    exit "$failed"
    ;;
esac
