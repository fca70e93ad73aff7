# Runs a Postgres for as long as standard input stays open: `sh postgres.sh BIN`, BIN being the folder of its programs.
# Prints the folder of its socket once it is ready. Whoever holds the other end of standard input may end in any way:
# the server stops and its files go.
trap '' HUP INT TERM
bin=$1
dir=$(mktemp -d "${TMPDIR:-/tmp}/modal-gateway-postgres.XXXXXX") || exit 1
as=
if [ "$(id -u)" = 0 ]; then # The server refuses to run as root.
    user=$(id -un postgres 2>/dev/null || echo nobody)
    as="setpriv --reuid=$user --regid=$(id -g "$user") --clear-groups"
    chown "$user" "$dir"
fi
chmod 755 "$dir"
cd "$dir" || exit 1
if $as "$bin/initdb" -D data -U postgres -A trust -E UTF8 --no-locale --no-sync >log 2>&1 &&
    $as "$bin/pg_ctl" -D data -w -l server-log -o "-c listen_addresses= -c unix_socket_directories=$dir -c fsync=off \
        -c synchronous_commit=off -c full_page_writes=off -c max_connections=200" start >>log 2>&1; then
    echo "$dir"
    cat >/dev/null
    $as "$bin/pg_ctl" -D data -m immediate stop >/dev/null 2>&1
else
    cat log server-log >&2 2>/dev/null
fi
cd / && rm -rf "$dir"
