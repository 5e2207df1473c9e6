#!/usr/bin/env bash
# Builds the fuzz targets of the language and runs each for so many seconds, from a copy of its corpus. Fails with what
# was found, and when a target did nothing. Needs a nightly compiler; installs cargo-fuzz outside the clone, once.
set -euo pipefail
seconds=${1:?usage: fuzz.sh SECONDS}
cd "$(dirname "$0")/../expr/fuzz"
target=${CARGO_TARGET_DIR:-$(realpath ../../target)}/fuzz

if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "fuzz: there is no nightly compiler; install one with: rustup toolchain install nightly" >&2
    exit 1
fi
tools=${XDG_CACHE_HOME:-$HOME/.cache}/carillon-tools
export PATH="$PATH:$tools/bin"
if ! cargo fuzz --version >/dev/null 2>&1; then
    CARGO_TARGET_DIR="$target/install" cargo install cargo-fuzz --locked --root "$tools"
    rm -rf "$target/install"
fi

cargo +nightly fuzz build --target-dir "$target"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for corpus in corpus/*/; do
    name=$(basename "$corpus")
    cp -r "$corpus" "$work/$name"
    seeds=$(find "$work/$name" -type f | wc -l)
    mkdir -p "$target/artifacts/$name"
    log=$work/$name.log
    if ! cargo +nightly fuzz run "$name" "$work/$name" --target-dir "$target" -- -max_total_time="$seconds" \
        -print_final_stats=1 -verbosity=0 -artifact_prefix="$target/artifacts/$name/" >"$log" 2>&1; then
        cat "$log" >&2
        echo "fuzz: $name FAILED; the text that it failed on is named above" >&2
        exit 1
    fi
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    if [ "${runs:-0}" -le "$seeds" ]; then
        cat "$log" >&2
        echo "fuzz: $name did nothing beyond its $seeds seeds" >&2
        exit 1
    fi
    echo "fuzz: $name ok, $runs runs in $seconds s"
done
