#!/bin/bash
# check_races.sh PROGRAM [LIBRARY_DIR]: every seeded race of races.cu is found, every correct twin is clean, in every order of blocks and warps.
set -u
program=$1
export LD_LIBRARY_PATH=${2:-}${2:+:}${LD_LIBRARY_PATH:-}
report=$(mktemp)
trap 'rm -f "$report"' EXIT
scenarios=$("$program" --list) || { echo "$program --list fails"; exit 1; }
wrong=0 total=0
while read -r name expected; do
  for order in forward reverse random; do
    total=$((total + 1))
    rm -f "$report"
    CUDA_EMULATOR_CHECK=race CUDA_EMULATOR_ORDER=$order CUDA_EMULATOR_REPORT=$report timeout 60 "$program" "$name" >/dev/null 2>"$report.log"
    status=$?
    found=clean
    grep -q '"kind": "race"' "$report" 2>/dev/null && found=race
    if [ $status -ne 0 ] || [ ! -e "$report" ] || [ $found != "$expected" ]; then
      wrong=$((wrong + 1))
      echo "$name, $order: expected $expected, found $found, exit status $status"
      head -3 "$report.log"
    fi
    rm -f "$report.log"
  done
done <<<"$scenarios"
echo "$((total - wrong)) of $total as expected"
[ $wrong -eq 0 ]
