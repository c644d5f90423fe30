#!/usr/bin/env bash
# Runs the project's tests on the `tch` backend (LibTorch). Installs torch 2.9.0 into a virtual environment of its own,
# because tch 0.22 wants exactly that LibTorch. About 2 GB of downloads; not part of CI.
#
#   tools/test_tch.sh [VENV]          default: target/venv-torch
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-target/venv-torch}
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/python" -c 'import torch; assert torch.__version__.startswith("2.9.0")' 2>/dev/null \
  || "$venv/bin/pip" install --quiet torch==2.9.0

export PATH="$(cd "$venv" && pwd)/bin:$PATH"
export LIBTORCH_USE_PYTORCH=1
lib=$(python -c 'import os, torch; print(os.path.join(os.path.dirname(torch.__file__), "lib"))')
export LD_LIBRARY_PATH="$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
# A target directory of its own: torch-sys bakes the path of LibTorch into what it builds.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target/tch}
cargo test --release --workspace --features minillm-train/tch
