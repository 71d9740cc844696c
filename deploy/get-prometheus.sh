#!/usr/bin/env bash
# Debian's Prometheus and promtool, unpacked (not installed) into a cache folder; no root needed.
# Usage: deploy/get-prometheus.sh [FOLDER]   (default build/prometheus; the programs are in FOLDER/usr/bin)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${1:-$root/build/prometheus}
for tool in apt-get dpkg flock; do
  command -v "$tool" >/dev/null || { echo "get-prometheus: needs Debian's $tool; or put prometheus and promtool on PATH" >&2; exit 3; }
done

mkdir -p "$target"
exec 9>"$target/.lock"
flock 9 # two test processes may ask at the same time
if [[ ! -x $target/usr/bin/prometheus || ! -x $target/usr/bin/promtool ]]; then
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  cd "$scratch"
  # A fresh machine has no package lists yet; only root can fetch them.
  apt-get -qq download prometheus 2>"$scratch/log" \
    || { apt-get -qq update 2>>"$scratch/log" && apt-get -qq download prometheus 2>>"$scratch/log"; } \
    || { cat "$scratch/log" >&2; echo "get-prometheus: apt-get could not download the package prometheus" >&2; exit 4; }
  dpkg -x prometheus_*.deb "$scratch/unpacked"
  # Only what is needed, the programs last: their presence means that all is there.
  mkdir -p "$target/usr/bin"
  for program in promtool prometheus; do
    mv "$scratch/unpacked/usr/bin/$program" "$target/usr/bin/.$program"
    mv "$target/usr/bin/.$program" "$target/usr/bin/$program"
  done
fi
echo "$target/usr/bin"
