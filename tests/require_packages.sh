# Sourced by test.sh and demo.sh: makes sure that Debian packages are installed, or says how to get them.
# Nothing is asked of apt or the network when nothing is missing.

require_packages() {
  local missing=() package
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  local install=(apt-get install -y --no-install-recommends "${missing[@]}")
  if [ "$(id -u)" = 0 ]; then
    apt-get update && DEBIAN_FRONTEND=noninteractive "${install[@]}"
  elif sudo -n true 2>/dev/null; then
    sudo -n apt-get update && sudo -n DEBIAN_FRONTEND=noninteractive "${install[@]}"
  else
    echo "These Debian packages are missing. Please run, then start again:" >&2
    echo "  sudo apt-get install ${missing[*]}" >&2
    exit 2
  fi
}

# What the program itself needs to be built.
build_packages=(g++ cmake ninja-build libdnnl-dev libhwy-dev libjpeg62-turbo-dev libwebp-dev libtiff-dev zlib1g-dev
  libstb-dev nlohmann-json3-dev libcli11-dev)
