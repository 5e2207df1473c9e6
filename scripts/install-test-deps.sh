#!/bin/sh
# Installs what the tests need besides Rust and a C compiler: a MariaDB server, and strace, which shows what central
# syncs before it answers. The tests start servers of their own on temporary folders, so nothing is left running, and
# nothing is done when both are there already.
set -eu

have_server() {
    PATH="$PATH:/usr/sbin" command -v mariadbd >/dev/null && command -v mariadb-install-db >/dev/null
}

missing=
have_server || missing="$missing mariadb-server"
command -v strace >/dev/null || missing="$missing strace"
if [ -z "$missing" ]; then
    echo "install-test-deps: mariadbd and strace are installed"
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "install-test-deps: no apt-get here; install MariaDB 10.11 or newer (mariadbd, mariadb-install-db) and strace" >&2
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
if ! command -v strace >/dev/null; then
    echo "install-test-deps: strace was installed, but is not to be found" >&2
    exit 1
fi
echo "install-test-deps: installed$missing; $(PATH="$PATH:/usr/sbin" mariadbd --version)"
