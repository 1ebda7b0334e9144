# PostgreSQL: finding one, and private ones in a directory of their own.
#
# A private server's directory holds `kind`, `port` (kept over restarts, as a client would expect),
# `data/` and `log`. Settings may be changed in data/postgresql.conf while it is stopped.
# shellcheck shell=bash

# The folder of the newest installed server's programs; 15 is the oldest release that we test on.
postgres_bin() {
    local bin version
    for bin in $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV) "$(pg_config --bindir 2>/dev/null)"; do
        if [ ! -x "$bin/postgres" ] || [ ! -x "$bin/initdb" ]; then continue; fi
        version=$("$bin/postgres" --version | sed -E 's/^[^0-9]*([0-9]+).*/\1/')
        [ "$version" -ge 15 ] && echo "$bin" && return
    done
    return 1
}

# psql, from the path or from beside an installed server.
psql_program() {
    local bin
    command -v psql || { bin=$(postgres_bin) && [ -x "$bin/psql" ] && echo "$bin/psql"; }
}

# postgres_trusts HOST PORT USER DATABASE: whether it lets us in without a password. Speaks the
# protocol itself (a startup message), so that no client need be installed.
postgres_trusts() {
    local host=$1 port=$2 user=$3 database=$4 length answer
    length=$((4 + 4 + 5 + ${#user} + 1 + 9 + ${#database} + 1 + 1))
    # shellcheck disable=SC2059 # the length is an escape sequence
    answer=$(printf "\0\0\0\\x$(printf %02x "$length")\0\3\0\0user\0$user\0database\0$database\0\0" |
        ask "$host" "$port" 10) || return 1
    # AuthenticationOk, then the first parameter's status and not an error.
    [ "$answer" = 52000000080000000053 ]
}

# Whether a server answers at a URL: with psql the log-in, else only the protocol (SSLRequest).
postgres_answers() {
    local psql answer
    if psql=$(psql_program); then
        PGCONNECT_TIMEOUT=5 "$psql" "$1" -XAtqc 'SELECT 1' >/dev/null
        return
    fi
    answer=$(printf '\0\0\0\10\4\322\26\57' | ask "$(url_host "$1")" "$(url_port "$1" 5432)" 1) || return 1
    [ "$answer" = 53 ] || [ "$answer" = 4e ] # S: with TLS, N: without
}

# The URL of a server that is there anyway.
find_postgres() {
    local try user database
    # One that listens but does not let us in may still be starting.
    for try in 1 2 3 4 5; do
        listens 127.0.0.1 5432 || return 1
        for user in root "$(id -un)" postgres; do
            for database in test postgres; do
                if postgres_trusts 127.0.0.1 5432 "$user" "$database"; then
                    echo "postgres://$user@127.0.0.1:5432/$database"
                    return
                fi
            done
        done
        [ "$try" = 5 ] || sleep 1
    done
    return 1
}

postgres_url() { echo "postgres://postgres@127.0.0.1:$(cat "$1/port")/postgres"; }

# Its process, if it runs.
postgres_pid() {
    local pid
    pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null) && runs "$pid" "$1/data" && echo "$pid"
}

# PostgreSQL refuses to run as root.
as_postgres() {
    if is_root; then
        (cd / && setpriv --reuid="$(postgres_user)" --regid="$(id -gn "$(postgres_user)")" --init-groups "$@")
    else
        "$@"
    fi
}
postgres_user() { if id postgres >/dev/null 2>&1; then echo postgres; else echo nobody; fi; }

start_postgres() {
    local dir=$1 bin try
    bin=$(postgres_bin) || fail "no PostgreSQL 15 or later is installed here"
    if postgres_pid "$dir" >/dev/null; then return; fi
    [ -e "$dir/data/PG_VERSION" ] || initialise_postgres "$bin" "$dir"
    if [ -e "$dir/port" ]; then
        launch_postgres "$bin" "$dir" || fail "PostgreSQL does not start; see $dir/log"
        return
    fi
    for try in 1 2 3 4 5; do
        free_port >"$dir/port"
        if launch_postgres "$bin" "$dir"; then return; fi
        say "PostgreSQL did not start on port $(cat "$dir/port") (try $try)"
    done
    rm -f "$dir/port"
    fail "PostgreSQL does not start; see $dir/log"
}

initialise_postgres() {
    local bin=$1 dir=$2
    echo postgres >"$dir/kind"
    : >"$dir/log"
    mkdir -p "$dir/data"
    if is_root; then chown -R "$(postgres_user)" "$dir/data" "$dir/log"; fi
    as_postgres "$bin/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 >"$dir/initdb.log" 2>&1 ||
        fail "initdb failed; see $dir/initdb.log (the folders above $dir must be open to user $(postgres_user))"
    cat >>"$dir/data/postgresql.conf" <<CONF
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 300
CONF
}

launch_postgres() {
    as_postgres "$1/pg_ctl" -D "$2/data" -l "$2/log" -o "-p $(cat "$2/port")" -w -t 60 start \
        >"$2/pg_ctl.log" 2>&1 </dev/null 9>&-
}

stop_postgres() {
    local bin
    bin=$(postgres_bin) || return
    postgres_pid "$1" >/dev/null || return 0
    as_postgres "$bin/pg_ctl" -D "$1/data" -m fast -w -t 60 stop >/dev/null
}

kill_postgres() {
    local pid
    pid=$(postgres_pid "$1") || return 0
    kill_tree "$pid"
    # The next start must not take a zombie that nobody reaped for a running server.
    rm -f "$1/data/postmaster.pid"
}

# fresh_database NAME: makes a database of our own on the server of DATABASE_URL and prints its URL;
# without psql, or without the right to make one, prints that of the one that was found.
fresh_database() {
    local psql name
    if psql=$(psql_program); then
        for name in "$1" "$1_$(date +%s)"; do # the second: somebody uses the first
            if "$psql" "$DATABASE_URL" -Xq -c "SET client_min_messages = warning" \
                -c "DROP DATABASE IF EXISTS $name" -c "CREATE DATABASE $name" >&2; then
                with_database "$DATABASE_URL" "$name"
                return
            fi
        done
    fi
    say "cannot make a database of its own; using the one that was found"
    echo "$DATABASE_URL"
}

# with_database URL NAME: the same server, another database.
with_database() {
    local base=${1%%\?*} query=''
    [ "$base" = "$1" ] || query="?${1#*\?}"
    case ${base#*://} in
    */*) base=${base%/*} ;;
    esac
    echo "$base/$2$query"
}
