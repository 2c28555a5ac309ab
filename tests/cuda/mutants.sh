#!/usr/bin/env bash
# Plants known mistakes in the kernels, one at a time, and runs the tests that must notice them, with all checks of the emulator.
#   tests/cuda/mutants.sh BUILD EMULATOR [FILE]
# BUILD: a built `cuda` preset; EMULATOR: the emulator's folder of libraries; FILE: only mistakes in this file.
# A mistake that goes unnoticed, or that no longer fits its file, is a failure. About a minute each.
set -euof pipefail
cd "$(dirname "$0")/../.."
[ $# -ge 2 ] || { sed -n 2,6p "$0" >&2; exit 2; }
root=$PWD build=$(realpath "$1") emulator=$(realpath "$2") only=${3:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trim() { sed 's/^ *//; s/ *$//' <<<"$1"; }

failures=0 number=0
# The mutated object comes before the library, whose own is then not taken.
link_mutant=$(ninja -C "$build" -t commands tests/cuda/dino_cuda_tests | tail -1)
link_mutant=${link_mutant/" libdino_engine.a"/" $work/mutant.o libdino_engine.a"}
link_mutant=${link_mutant/"-o tests/cuda/dino_cuda_tests"/"-o $work/mutant"}
while IFS='|' read -r file arguments mistake; do
  file=$(trim "$file") arguments=$(trim "$arguments") mistake=$(trim "$mistake")
  [[ $file == '' || $file == '#'* ]] && continue
  [[ $only == '' || $only == "$file" ]] || continue
  number=$((number + 1))
  perl -0pe "$mistake" "kernels/$file" >"$work/$file"
  if cmp -s "kernels/$file" "$work/$file"; then
    echo "does not fit: $file: $mistake"
    failures=$((failures + 1))
    continue
  fi
  compile=$(ninja -C "$build" -t commands "CMakeFiles/dino_engine.dir/kernels/$file.o" | tail -1)
  compile=${compile/"-c $root/kernels/$file"/"-c $work/$file"}
  compile=${compile/"-o CMakeFiles/dino_engine.dir/kernels/$file.o"/"-o $work/mutant.o"}
  compile=${compile/"CMakeFiles/dino_engine.dir/kernels/$file.o.d"/"$work/mutant.d"}
  verdict=unnoticed
  if ! (cd "$build" && eval "$compile" && eval "$link_mutant") >"$work/log" 2>&1; then
    verdict="does not build"
  elif ! (LD_LIBRARY_PATH=$emulator CUDA_EMULATOR_CHECK=all CUDA_EMULATOR_FAIL=1 \
            timeout 300 "$work/mutant" $arguments) >"$work/log" 2>&1; then
    verdict=noticed
  fi
  [ "$verdict" = noticed ] || failures=$((failures + 1))
  echo "$verdict: $file: $mistake"
done <tests/cuda/mutants.txt
echo "$number mistakes, $failures of them not noticed"
[ $failures -eq 0 ]
