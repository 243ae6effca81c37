#!/usr/bin/env bash
# Runs each fuzz target for SECONDS_EACH seconds (600) on the repository's seeds. What is found is kept in
# fuzz/artifacts; a finding that was repaired belongs into fuzz/seeds as found-…, where `make test` reads it.
set -euo pipefail
cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

cargo fuzz --version >/dev/null 2>&1 || {
    echo "fuzz: cargo-fuzz is missing: cargo install cargo-fuzz; rustup toolchain install nightly" >&2
    exit 1
}
export LD_LIBRARY_PATH="${LIBTORCH:-$PWD/.torch}/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
for target in ${TARGETS:-torch safetensors index}; do
    mkdir -p "fuzz/corpus/$target"
    # libtorch leaks what lives as long as the process.
    ASAN_OPTIONS=detect_leaks=0 cargo +nightly fuzz run "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="${SECONDS_EACH:-600}" -max_len=16384 -timeout=20 -rss_limit_mb=4096 -print_final_stats=1
done
