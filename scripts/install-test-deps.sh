#!/bin/sh
# Installs what the tests and benchmarks need besides Rust and a C compiler: a MariaDB server; strace, which shows what
# central syncs before it answers; h2load, a peer for pushes; Node with npm's http_ece, which opens Web Push bodies,
# and standardwebhooks, which verifies callbacks, without sharing code with us; with Python's pip a Kafka broker, an S3 store and DuckDB for the history. The tests start servers of their own on temporary folders, so nothing is left running,
# and nothing is done when all are there already.
set -eu

have_server() {
    PATH="$PATH:/usr/sbin" command -v mariadbd >/dev/null && command -v mariadb-install-db >/dev/null
}

have() {
    command -v "$1" >/dev/null
}

# Its versions are pinned in package-lock.json, and it goes into the clone, so it needs no root.
install_from_npm() {
    folder=$(dirname "$0")/../tests/$1
    if ! cmp -s "$folder/package-lock.json" "$folder/node_modules/.installed"; then
        npm ci --prefix "$folder" --no-audit --no-fund --ignore-scripts
        cp "$folder/package-lock.json" "$folder/node_modules/.installed"
    fi
}

install_npm() {
    install_from_npm web-push
    install_from_npm webhooks
}

# Pinned by their hashes, unpacked into the clone, without what they depend on: only the programs in them are run, and
# DuckDB depends on nothing. Needs no root.
install_history() {
    folder=$(dirname "$0")/../tests/history
    if ! cmp -s "$folder/requirements.txt" "$folder/.python/.installed"; then
        rm -rf "$folder/.python"
        python3 -m pip install --quiet --disable-pip-version-check --no-input --root-user-action ignore \
            --require-hashes --no-deps --only-binary :all: --target "$folder/.python" \
            -r "$folder/requirements.txt"
        cp "$folder/requirements.txt" "$folder/.python/.installed"
    fi
}

have_pip() {
    have python3 && python3 -m pip --version >/dev/null 2>&1
}

missing=
have_server || missing="$missing mariadb-server"
have strace || missing="$missing strace"
have h2load || missing="$missing nghttp2-client"
have node || missing="$missing nodejs"
have npm || missing="$missing npm"
have_pip || missing="$missing python3-pip"
if [ -z "$missing" ]; then
    install_npm
    install_history
    echo "install-test-deps: mariadbd, strace, h2load, http_ece, standardwebhooks, tansu, weed and duckdb are installed"
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "install-test-deps: no apt-get here; install MariaDB 10.11 or newer (mariadbd, mariadb-install-db), strace," \
        "h2load, Node 18 or newer with npm, and Python 3.11 or newer with pip" >&2
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "install-test-deps: installing needs root: run 'sudo scripts/install-test-deps.sh' once" >&2
    exit 1
fi

# A policy of 101 forbids packages to start their services; one that is there already is put back.
policy=/usr/sbin/policy-rc.d
kept=
if [ -e "$policy" ]; then
    kept=$(mktemp)
    cp -p "$policy" "$kept"
fi
restore_policy() {
    if [ -n "$kept" ]; then
        mv "$kept" "$policy"
    else
        rm -f "$policy"
    fi
}
trap restore_policy EXIT
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"

export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# Unquoted: names of packages.
apt-get install -q -y --no-install-recommends $missing
if ! have_server; then
    echo "install-test-deps: mariadb-server was installed, but mariadbd is not to be found" >&2
    exit 1
fi
for program in strace h2load node npm; do
    if ! have "$program"; then
        echo "install-test-deps: $program is not to be found after its package was installed" >&2
        exit 1
    fi
done
if ! have_pip; then
    echo "install-test-deps: python3 -m pip does not run after its package was installed" >&2
    exit 1
fi
install_npm
install_history
echo "install-test-deps: installed$missing; $(PATH="$PATH:/usr/sbin" mariadbd --version)"
