#!/usr/bin/env bash
# Everything about one GPU within 8 minutes: bash benchmarks/gpu.sh [--wheels FOLDER]
# [--output FOLDER] [--parts tests rates memory] [--device cpu --quick]
# [--patience FACTOR]
#
# Needs torch, torchvision, timm, scikit-learn, pandas, psutil, pytest, and what the
# package itself imports; --wheels installs what is missing of it from files, such as
# blake3, platformdirs and the embedded weights, without the network. Each part has a
# time limit of its own, so that one that hangs loses nothing of the others. Writes
# gpu.json and gpu.md.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
python="${PYTHON:-python3}"
packages="$(mktemp -d)"
trap 'rm -rf "$packages"' EXIT

arguments=()
while [ $# -gt 0 ]; do
  if [ "$1" = --wheels ]; then
    "$python" -m pip install --quiet --no-index --no-deps --no-compile \
      --disable-pip-version-check --target "$packages" "$2"/*.whl
    shift 2
  else
    arguments+=("$1")
    shift
  fi
done
export PYTHONPATH="$here/..:$packages${PYTHONPATH:+:$PYTHONPATH}"
"$python" "$here/_gpu_parts.py" "${arguments[@]}"
