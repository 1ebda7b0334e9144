# RabbitMQ: finding one, and private ones in a directory of their own.
#
# A private broker's directory holds `kind`, `ports` (AMQP, distribution, epmd; kept over
# restarts), `pid`, `epmd.pid`, `rabbitmq.conf` (which may be changed while it is stopped),
# `mnesia/` and `logs/`. It has its own node name, cookie and epmd, so that it shares nothing with a
# system's broker.
#
# ADJUTANT_RABBITMQ_ROOT names the root folder of another Debian whose RabbitMQ is run instead (by
# chroot, as root); the directory must then lie below that folder.
# shellcheck shell=bash

# Not the wrapper on the path: that one insists on root or a user of its own.
RABBITMQ_PROGRAMS=/usr/lib/rabbitmq/bin

rabbitmq_installed() {
    [ -x "${ADJUTANT_RABBITMQ_ROOT:-}$RABBITMQ_PROGRAMS/rabbitmq-server" ]
}

# Whether a broker greets us: we offer AMQP 0-9-1 and it answers with a method frame.
amqp_answers() { [ "$(printf 'AMQP\0\0\11\1' | ask "$1" "$2" 1)" = 01 ]; }

# Behind TLS only the port can be tried.
rabbitmq_answers() {
    case $1 in
    amqps://*) listens "$(url_host "$1")" "$(url_port "$1" 5671)" ;;
    *) amqp_answers "$(url_host "$1")" "$(url_port "$1" 5672)" ;;
    esac
}

find_rabbitmq() {
    amqp_answers 127.0.0.1 5672 && echo "amqp://guest:guest@127.0.0.1:5672/%2f"
}

rabbitmq_port() { cut -d' ' -f1 "$1/ports"; }

rabbitmq_node() { echo "adjutant$(rabbitmq_port "$1")@localhost"; }

rabbitmq_url() { echo "amqp://guest:guest@127.0.0.1:$(rabbitmq_port "$1")/%2f"; }

# Its process, if it runs.
rabbitmq_pid() {
    local pid
    pid=$(head -n 1 "$1/pid" 2>/dev/null) && runs "$pid" "RABBITMQ_NODENAME=$(rabbitmq_node "$1")" && echo "$pid"
}

epmd_pid() {
    local pid
    pid=$(cat "$1/epmd.pid" 2>/dev/null) && runs "$pid" "RABBITMQ_NODENAME=$(rabbitmq_node "$1")" && echo "$pid"
}

# in_rabbitmq DIR PROGRAM ARG…: replaces this (sub)shell by a program with the broker's surroundings
# and nothing of the caller's.
in_rabbitmq() {
    local dir=$1 root=${ADJUTANT_RABBITMQ_ROOT:-} node dist epmd
    local -a enter=()
    shift
    node=$(rabbitmq_node "$dir")
    read -r _ dist epmd <"$dir/ports"
    if [ -n "$root" ]; then
        # RabbitMQ reads /proc; the mount is seen by these processes only and ends with them.
        # shellcheck disable=SC2016 # for the inner shell
        enter=(unshare --mount sh -c 'mount --rbind /proc "$0/proc" && exec chroot "$0" "$@"' "$root")
        case $dir in "$root"/*) dir=${dir#"$root"} ;; *) fail "$dir must lie below $root" ;; esac
    fi
    cd / || exit 1
    exec env -i PATH="$PATH" LANG=C.UTF-8 HOME="$dir" \
        ERL_EPMD_PORT="$epmd" ERL_EPMD_ADDRESS=127.0.0.1 \
        RABBITMQ_NODENAME="$node" \
        RABBITMQ_DIST_PORT="$dist" \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-kernel inet_dist_use_interface {127,0,0,1}' \
        RABBITMQ_MNESIA_BASE="$dir/mnesia" \
        RABBITMQ_LOG_BASE="$dir/logs" \
        RABBITMQ_PID_FILE="$dir/pid" \
        RABBITMQ_CONF_ENV_FILE="$dir/rabbitmq-env.conf" \
        RABBITMQ_CONFIG_FILE="$dir/rabbitmq.conf" \
        RABBITMQ_ADVANCED_CONFIG_FILE="$dir/advanced.config" \
        RABBITMQ_ENABLED_PLUGINS_FILE="$dir/enabled_plugins" \
        "${enter[@]}" "$@"
}

start_rabbitmq() {
    local dir=$1 try
    rabbitmq_installed || fail "no RabbitMQ is installed here"
    if rabbitmq_pid "$dir" >/dev/null; then return; fi
    if [ -e "$dir/ports" ]; then
        launch_rabbitmq "$dir" || fail "RabbitMQ does not start; see $dir/logs"
        return
    fi
    echo rabbitmq >"$dir/kind"
    mkdir -p "$dir/logs"
    : >"$dir/rabbitmq-env.conf"
    echo '[].' >"$dir/enabled_plugins"
    echo '[].' >"$dir/advanced.config"
    for try in 1 2 3; do
        echo "$(free_port) $(free_port) $(free_port)" >"$dir/ports"
        echo "listeners.tcp.1 = 127.0.0.1:$(rabbitmq_port "$dir")" >"$dir/rabbitmq.conf"
        if launch_rabbitmq "$dir"; then return; fi
        kill_rabbitmq "$dir"
        say "RabbitMQ did not start on port $(rabbitmq_port "$dir") (try $try)"
    done
    rm -f "$dir/ports"
    fail "RabbitMQ does not start; see $dir/logs"
}

launch_rabbitmq() {
    local dir=$1 launcher
    rm -f "$dir/pid"
    # Started by us and not by RabbitMQ, which would leave it running for ever.
    (in_rabbitmq "$dir" epmd) >"$dir/logs/epmd" 2>&1 </dev/null 9>&- &
    echo $! >"$dir/epmd.pid"
    # setsid: a Ctrl-C at the terminal is for the tests, not for the broker.
    (in_rabbitmq "$dir" setsid "$RABBITMQ_PROGRAMS/rabbitmq-server") >"$dir/logs/startup" 2>&1 </dev/null 9>&- &
    launcher=$!
    disown -a
    wait_until 90 rabbitmq_ready_or_gone "$dir" "$launcher" && amqp_answers 127.0.0.1 "$(rabbitmq_port "$dir")"
}

rabbitmq_ready_or_gone() {
    gone "$2" || { rabbitmq_pid "$1" >/dev/null && amqp_answers 127.0.0.1 "$(rabbitmq_port "$1")"; }
}

stop_rabbitmq() {
    local pid
    if pid=$(rabbitmq_pid "$1"); then
        kill -TERM "$pid"
        wait_until 60 gone "$pid" || kill_tree "$pid"
    fi
    kill_epmd "$1"
}

kill_rabbitmq() {
    local pid
    if pid=$(rabbitmq_pid "$1"); then kill_tree "$pid"; fi
    kill_epmd "$1"
}

kill_epmd() {
    local pid
    if pid=$(epmd_pid "$1"); then kill_tree "$pid"; fi
    rm -f "$1/epmd.pid" "$1/pid"
}
