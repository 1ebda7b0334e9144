# What building and testing needs besides services: Rust, a C compiler (ring, bundled SQLite),
# cargo-nextest.
# shellcheck shell=bash

OLDEST_RUST=1.94
# Known to build with our oldest Rust; a machine's own, whatever its version, is used as it is.
NEXTEST_VERSION=0.9.143

ensure_rust() {
    local version
    # rustup's folder may not be on the path of a script.
    if ! has cargo && [ -x "$HOME/.cargo/bin/cargo" ]; then export PATH="$HOME/.cargo/bin:$PATH"; fi
    has cargo || fail "no Rust: install $OLDEST_RUST or later with rustup"
    version=$(rustc --version | cut -d' ' -f2)
    printf '%s\n' "$OLDEST_RUST" "$version" | sort -VC ||
        fail "Rust $version is too old: $OLDEST_RUST or later is needed (rustup update stable)"
}

# ensure_component PROGRAM COMPONENT
ensure_component() {
    cargo "$1" --version >/dev/null 2>&1 || { has rustup && rustup component add "$2" >&2; } ||
        fail "cargo $1 is missing: rustup component add $2"
}

ensure_c_compiler() {
    has cc || apt_install gcc libc6-dev ||
        fail "no C compiler: install one (Debian: apt-get install gcc libc6-dev)"
}

ensure_nextest() {
    if cargo nextest --version >/dev/null 2>&1; then return; fi
    say "installing cargo-nextest $NEXTEST_VERSION from crates.io; this takes some minutes"
    # Not into our target directory: it is built once a machine, not once a clone.
    CARGO_TARGET_DIR='' cargo install cargo-nextest --locked --version "$NEXTEST_VERSION" >&2 ||
        fail "cargo-nextest cannot be installed: cargo install cargo-nextest --locked"
    # cargo installs into this folder, which need not be on the path.
    cargo nextest --version >/dev/null 2>&1 || export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
}
