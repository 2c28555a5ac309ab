#!/usr/bin/env bash
# What ptxas makes of every kernel, for A100, H100 and B200; needs nvcc, no GPU. One line per kernel:
#   threads of a block, as far as the kernel says; registers on the three; bytes of static shared memory, stack and spilled
#   registers, the most of the three; warps that fit on a multiprocessor of the three, without dynamic shared memory; atomic
#   operations on floating-point numbers in its PTX
# bench/kernel_resources.sh [--mangled] [FILE.cu…]
set -euo pipefail
cd "$(dirname "$0")/.."
mangled=0
if [[ ${1:-} == --mangled ]]; then mangled=1; shift; fi
nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
[[ -x $nvcc ]] || { echo "kernel_resources.sh: nvcc is missing; install CUDA 13" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
files=("$@")
[[ $# -gt 0 ]] || files=(kernels/*.cu)

# resources_of FILE.cu: PTX for each, as a release has it, and what ptxas says about it.
resources_of() {
  local name flags=() ptxas target
  name=$(basename "$1" .cu)
  ptxas=$(dirname "$nvcc")/ptxas
  case $name in render_crops*) flags=(-fmad=false) ;; esac
  for target in 80 90 100; do
    $ccache "$nvcc" -c -ptx -arch=compute_$target -O3 -DNDEBUG -std=c++20 --expt-relaxed-constexpr "${flags[@]}" -I. -DDINO_WITH_CUDA "$1" \
      -o "$work/$name.$target.ptx"
    "$ptxas" -v -O3 -arch=sm_$target "$work/$name.$target.ptx" -o /dev/null 2> "$work/$name.$target.log" ||
      { cat "$work/$name.$target.log" >&2; return 1; }
  done
}
ccache=$(command -v ccache || true)
export -f resources_of
export nvcc ccache work
printf '%s\0' "${files[@]}" | xargs -0 -P "$(nproc)" -I{} bash -c 'set -euo pipefail; resources_of "$1"' _ {}

# PTX first (threads, atomics), then the logs.
cat > "$work/table.awk" <<'AWK'
function most(key, value) { if (value + 0 > worst[kernel, key] + 0) worst[kernel, key] = value + 0 }
# Warps on a multiprocessor: registers go in units of 256 per warp to four parts of 16384; a block takes 1 KiB besides its own.
function warps(registers, shared, per_multiprocessor, threads,    of_block, of_part, blocks, by_shared) {
  of_block = int((threads + 31) / 32)
  of_part = int(16384 / (256 * int((registers * 32 + 255) / 256)))
  blocks = int(4 * of_part / of_block)
  by_shared = int(per_multiprocessor * 1024 / (shared + 1024))
  if (by_shared < blocks) blocks = by_shared
  if (64 / of_block < blocks) blocks = int(64 / of_block)
  if (blocks > 32) blocks = 32
  return blocks * of_block
}
FILENAME ~ /\.ptx$/ {
  if (match($0, /\.entry [A-Za-z0-9_$]+/)) { kernel = substr($0, RSTART + 7, RLENGTH - 7); kernels[kernel] = 1 }
  if (match($0, /\.maxntid [0-9, ]+/)) { split(substr($0, RSTART + 9, RLENGTH - 9), axis, /[, ]+/); threads[kernel] = axis[1] * (axis[2] ? axis[2] : 1) * (axis[3] ? axis[3] : 1) }
  if ($0 ~ /[ \t](atom|red)\.[a-z0-9_.:]*(f16|f16x2|bf16|bf16x2|f32|f64)[ \t]/) ++atomics[kernel, FILENAME]
  next
}
/Compiling entry function/ { split($0, part, "'"); kernel = part[2]; target = part[4]; sub("sm_", "", target) }
/bytes stack frame/ { most("stack", $1); most("spill", $5 + $9) }
/Used [0-9]+ registers/ {
  match($0, /Used [0-9]+/); registers[kernel, target] = substr($0, RSTART + 5, RLENGTH - 5) + 0
  bytes = 0
  if (match($0, /[0-9]+ bytes smem/)) bytes = substr($0, RSTART, RLENGTH - 11) + 0
  most("shared", bytes)
}
END {
  for (kernel in kernels) {
    n = threads[kernel]; float_atomics = 0
    for (place in atomics) { split(place, part, SUBSEP); if (part[1] == kernel && atomics[place] > float_atomics) float_atomics = atomics[place] }
    printf "%s threads=%s registers=%d/%d/%d shared=%d stack=%d spill=%d", kernel, n ? n : "?", registers[kernel, 80], registers[kernel, 90], registers[kernel, 100],
           worst[kernel, "shared"], worst[kernel, "stack"], worst[kernel, "spill"]
    if (n) printf " warps=%d/%d/%d", warps(registers[kernel, 80], worst[kernel, "shared"], 164, n), warps(registers[kernel, 90], worst[kernel, "shared"], 228, n), warps(registers[kernel, 100], worst[kernel, "shared"], 228, n)
    printf " float_atomics=%d\n", float_atomics
  }
}
AWK
awk -f "$work/table.awk" "$work"/*.ptx "$work"/*.log | if [[ $mangled == 1 ]]; then sort; else
  c++filt | sed -E 's/\b\w+_cu:://g; s/dino::(cuda::)?//g; s/__nv_bfloat16/bf16/g; s/^void //; s/\([^=]*\) threads=/ threads=/' | sort
fi
