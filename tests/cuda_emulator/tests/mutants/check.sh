#!/bin/bash
# check.sh PROGRAM [LIBRARY_DIR]: every mutant of `mutants` is found as its table says, in every order of blocks and warps, and where its source says
# ("// found: NAME", of a race one of the two places); the correct twins are clean and right. CUDA_EMULATOR_ARCH is taken from the environment.
set -u
program=$1
export LD_LIBRARY_PATH=${2:-}${2:+:}${LD_LIBRARY_PATH:-}
export CUDA_EMULATOR_CHECK=all
sources=$(dirname "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mutants=$("$program") || { echo "$program does not list its mutants"; exit 1; }
total=0 wrong=0

complain() {
  wrong=$((wrong + 1))
  echo "$1, $order: $2"
  head -3 "$work/log"
}

for order in forward reverse random; do
  export CUDA_EMULATOR_ORDER=$order CUDA_EMULATOR_REPORT=$work/report
  for streams in eager late; do
    total=$((total + 1))
    CUDA_EMULATOR_STREAMS=$streams CUDA_EMULATOR_FAIL=1 timeout 120 "$program" good >"$work/out" 2>"$work/log" || complain good "not clean with streams $streams: $(head -1 "$work/out")"
  done
  while read -r name finding outcome kernel streams; do
    total=$((total + 1))
    rm -f "$work/report"
    CUDA_EMULATOR_STREAMS=$streams timeout 60 "$program" "$name" >"$work/out" 2>"$work/log"
    status=$?
    case $outcome in
      right) expected="^0 " ;;
      wrong) expected="^3 " ;;
      any) expected="^[03] " ;;
      *) expected="^4 .*: error $outcome " ;;
    esac
    echo "$status $(cat "$work/out")" | grep -q "$expected" || { complain "$name" "expected $outcome, got status $status: $(cat "$work/out")"; continue; }
    [ "$finding" = - ] && continue
    grep "\"kind\": \"${finding//_/ }\"" "$work/report" >"$work/found" || { complain "$name" "no finding of kind $finding"; continue; }
    [ "$kernel" = - ] && continue
    grep -qE "\"kernel\": \"[^\"]*$kernel(<|\()" "$work/found" || { complain "$name" "the finding does not name $kernel"; continue; }
    places=$(grep -nE "// found:.* $name( |\$)" "$sources"/*.cuh | sed -E 's/^.*\/([a-z]+\.cuh):([0-9]+):.*/\1", "line": \2,|\1:\2 /' | paste -sd "|")
    [ -z "$places" ] || grep -qE "$places" "$work/found" || complain "$name" "found elsewhere than at $places"
  done <<<"$mutants"
done
echo "$((total - wrong)) of $total as expected"
[ $wrong -eq 0 ]
