#!/usr/bin/env bash
# Installs the build, moves the installation elsewhere, builds a project against it and runs that.
set -euo pipefail
build=$1 work=$2
here=$(cd "$(dirname "$0")" && pwd)
rm -rf "$work"
mkdir -p "$work/images"
cmake --install "$build" --prefix "$work/installed" >/dev/null
mv "$work/installed" "$work/moved"
if grep -rl "$work/installed" "$work/moved/lib" --include='*.cmake'; then
  echo "the installed files above name the prefix they were installed to" >&2
  exit 1
fi
cmake -S "$here" -B "$work/build" -DCMAKE_PREFIX_PATH="$work/moved" -DCMAKE_BUILD_TYPE=Release >/dev/null
cmake --build "$work/build"
"$work/build/consumer" "$work/images"
"$work/moved/bin/dino_engine" info
