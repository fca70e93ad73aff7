#!/usr/bin/env bash
# Checks for what the tasks need, and installs what is missing with apt-get where this user may; else it
# prints the command to run. Tasks: build, test (which includes build), proxies (tests/proxies.rs),
# clients (every language of tests/generated_clients.rs), packaging (tests/packaging.rs), browser
# (tests/browser.sh, tests/events.rs), instructions (tests/instructions.rs), bench (benches/), compose
# (tests/compose/run.sh), images (container base images where none can be pulled).
set -euo pipefail

packages=() missing=()

# need TEXT PACKAGE…: what is missing, and the Debian packages that bring it
need() {
    missing+=("$1")
    packages+=("${@:2}")
}

# A server binary, which Debian keeps out of PATH; tests start a cluster of their own with it.
has_postgres() {
    command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null
}

check_build() {
    command -v cmake >/dev/null || need "cmake (RandomX)" cmake
    command -v make >/dev/null || need "make (RandomX)" make
    { command -v c++ && command -v cc; } >/dev/null || need "a C and C++ compiler (RandomX, SQLite)" gcc g++ libc6-dev
}

check_compose() {
    command -v curl >/dev/null || need "curl" curl
    command -v python3 >/dev/null || need "Python" python3
}

check_test() {
    check_build
    has_postgres || need "a Postgres server (store tests)" postgresql
    [ -x /usr/sbin/pgbouncer ] || need "PgBouncer (store tests)" pgbouncer
    command -v curl >/dev/null || need "curl (the documentation's examples)" curl
    { command -v pgrep && command -v kill; } >/dev/null || need "pgrep and kill (tests that stop programs)" procps
    python3 -c 'import ensurepip, venv' 2>/dev/null || need "Python with venv (generated client)" python3 python3-venv
}

check_proxies() {
    local PATH=$PATH:/usr/sbin
    command -v nginx >/dev/null || need "nginx (tests behind a reverse proxy)" nginx-light
    command -v haproxy >/dev/null || need "HAProxy (tests behind a reverse proxy)" haproxy
    command -v caddy >/dev/null || need "Caddy (tests behind a reverse proxy)" caddy
}

check_clients() {
    { command -v java && command -v javac; } >/dev/null || need "a JDK (openapi-generator, Java client)" default-jdk-headless
    command -v node >/dev/null || need "Node.js (TypeScript client)" nodejs
    command -v tsc >/dev/null || need "TypeScript (TypeScript client)" node-typescript
    command -v go >/dev/null || need "Go (Go client)" golang-go
}

check_packaging() {
    { command -v prometheus && command -v promtool; } >/dev/null || need "Prometheus (alerts)" prometheus
    command -v systemd-analyze >/dev/null || need "systemd-analyze (the unit)" systemd
    command -v man >/dev/null || need "man (manual pages)" man-db
    command -v zsh >/dev/null || need "zsh (completions)" zsh
    command -v fish >/dev/null || need "fish (completions)" fish
}

check_browser() {
    command -v chromium >/dev/null || command -v google-chrome >/dev/null || need "a browser (pages)" chromium
    command -v chromedriver >/dev/null || need "ChromeDriver (the browser's example)" chromium-driver
}

check_instructions() {
    check_build
    command -v valgrind >/dev/null || need "valgrind (instruction counts)" valgrind
}

check_bench() {
    local PATH=$PATH:/usr/sbin
    check_test
    command -v nginx >/dev/null || need "nginx (the same bytes from a file)" nginx-light
    { command -v pgbench || compgen -G '/usr/lib/postgresql/*/bin/pgbench'; } >/dev/null ||
        need "pgbench (the same queries without a gateway)" postgresql
}

for task in "${@:-}"; do
    case $task in
        build) check_build ;;
        test) check_test ;;
        proxies) check_proxies ;;
        clients) check_clients ;;
        packaging) check_packaging ;;
        browser) check_browser ;;
        instructions) check_instructions ;;
        bench) check_bench ;;
        compose) check_compose ;;
        images) command -v debootstrap >/dev/null || need "debootstrap (container base images)" debootstrap ;;
        *) echo "usage: $0 TASK…: build, test, proxies, clients, packaging, browser, instructions, bench, compose, images" >&2 && exit 2 ;;
    esac
done

status=0
if ! command -v cargo >/dev/null; then
    echo "setup: a Rust toolchain (1.95 or later) is missing: install it with rustup" >&2
    status=1
fi
if [ ${#packages[@]} = 0 ]; then exit "$status"; fi

printf 'setup: missing: %s\n' "${missing[@]}" | sort -u >&2
become=()
if [ "$(id -u)" != 0 ]; then become=(sudo); fi
install=("${become[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${packages[@]}")
if ! command -v apt-get >/dev/null || { [ "$(id -u)" != 0 ] && ! sudo -n true 2>/dev/null; }; then
    echo "setup: install it, on Debian with: sudo apt-get update && sudo apt-get install ${packages[*]}" >&2
    exit 1
fi
echo "setup: ${install[*]}" >&2
"${become[@]}" apt-get update --quiet=2
"${install[@]}" </dev/null
exit "$status"
