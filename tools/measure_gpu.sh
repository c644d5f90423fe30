#!/usr/bin/env bash
# Checks and measures a GPU in at most eight minutes: doctor, then the speed, memory and launches of two configurations, in f32 and bf16,
# beside PyTorch where that finds the device.
#
#   cargo build --release --features wgpu,vulkan
#   tools/measure_gpu.sh [DEVICE] [PROGRAM]          DEVICE: vulkan (default), wgpu, metal, cuda
#
# One JSON object a line on stdout; what goes wrong is said on stderr, and the next measurement goes on.
set -uo pipefail
cd "$(dirname "$0")/.."
device=${1:-vulkan}
program=${2:-target/release/minillm-train}
steps=${MINILLM_STEPS:-20}

measure() { # name, seconds, arguments of the program
  local name=$1 limit=$2
  shift 2
  printf '{"measured": "%s", "result": ' "$name"
  timeout "$limit" "$program" "$@" --device "$device" --json 2> >(grep -v XDG_RUNTIME_DIR >&2) || printf 'null\n'
  printf '}\n'
}

"$program" devices >&2
measure doctor 120 doctor
for precision in f32 bf16; do
  common=(--steps "$steps" --warmup 5 --launches --set "train.precision=$precision")
  measure "shakespeare-llama, $precision" 45 bench configs/shakespeare-llama.toml --set model.vocab_size=65 --set model.dropout=0.0 "${common[@]}"
  measure "gpt2-124m, $precision" 75 bench configs/gpt2-124m.toml --set model.vocab_size=50257 --set train.batch_size=8 \
    --set train.micro_batch_size=8 "${common[@]}"
  # The same model by PyTorch, where that is installed and finds a CUDA device.
  if python3 -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
    for compile in "" --compile; do
      printf '{"measured": "PyTorch %s, shakespeare-llama, %s", "result": ' "$compile" "$precision"
      timeout 50 python3 tools/pytorch_train.py --layers 6 --width 384 --heads 6 --kv-heads 3 --context 256 --batch 64 --vocab 65 \
        --device cuda --dtype "$precision" --steps "$steps" $compile || printf 'null\n'
      printf '}\n'
    done
  fi
done
