#!/usr/bin/env bash
# Fuzzes the loaders of untrusted files, one after the other, each for SECONDS (60 unless told):
#
#   fuzz/run.sh [SECONDS] [TARGET...]
#
# Needs nightly Rust and `cargo install cargo-fuzz`. The fuzzers start from the crafted files of
# minillm-train/tests/hostile, which must pass first, and continue from what earlier runs found (fuzz/corpus). An input
# that panics, takes more than 5 seconds, 2 GiB, or one allocation of 256 MiB is a finding: it lands in
# fuzz/artifacts, and `cargo +nightly fuzz run TARGET FILE` shows it again. Meant for a nightly job, not for CI.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(safetensors gguf config_json tokenizer_json token_file manifest)

scratch=$(mktemp -d -p "$([ -w /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")")
trap 'rm -rf "$scratch"' EXIT

echo "making seeds"
MINILLM_SEEDS="$scratch/seeds" cargo test --quiet --release -p minillm-train --test hostile
summary=()
for target in "${targets[@]}"; do
    mkdir -p "fuzz/corpus/$target" "$scratch/tmp"
    log="$scratch/$target.log"
    verdict="no finding"
    TMPDIR="$scratch/tmp" cargo +nightly fuzz run "$target" "fuzz/corpus/$target" "$scratch/seeds/$target" -- \
        -max_total_time="$seconds" -timeout=5 -rss_limit_mb=2048 -malloc_limit_mb=256 -max_len=65536 \
        -print_final_stats=1 2>&1 | tee "$log" || verdict="FINDING, see fuzz/artifacts/$target"
    rm -rf "$scratch/tmp"
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    covered=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -1)
    summary+=("$target: ${runs:-?} runs, ${covered:-?} edges, $verdict")
done
echo
printf '%s\n' "${summary[@]}"
[[ "${summary[*]}" != *FINDING* ]]
