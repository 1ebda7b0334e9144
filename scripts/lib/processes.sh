# Processes that we started, found by their id and never by a name. Signals go to a whole tree,
# because PostgreSQL's backends and Erlang's helpers leave their parent's process group.
# shellcheck shell=bash

# Whether a process runs; a zombie does not.
alive() {
    local stat
    [ -n "${1:-}" ] && stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    case ${stat##*) } in Z* | X*) return 1 ;; esac
}

# runs PID WORD: whether it runs and WORD is one of its arguments or environment entries. Ids are
# used again, so that a number from a file may by now be somebody else's.
runs() {
    alive "${1:-}" || return 1
    cat "/proc/$1/cmdline" "/proc/$1/environ" 2>/dev/null | tr '\0' '\n' | grep -xF -- "$2" >/dev/null
}

# The process and everything below it, parents first.
process_tree() {
    local parents pid i=0
    local -a tree=("$1")
    # "pid ppid" of all processes; the command's name, which may hold anything, is cut out.
    parents=$(cat /proc/[0-9]*/stat 2>/dev/null | sed -E 's/^([0-9]+) .*\) . ([0-9]+) .*$/\1 \2/') || true
    while [ "$i" -lt "${#tree[@]}" ]; do
        while read -r pid; do
            tree+=("$pid")
        done < <(awk -v parent="${tree[i]}" '$2 == parent { print $1 }' <<<"$parents")
        i=$((i + 1))
    done
    printf '%s\n' "${tree[@]}"
}

# signal_tree SIGNAL PID: parents first, so that nobody restarts a child.
signal_tree() {
    local pid
    while read -r pid; do
        kill "-$1" "$pid" 2>/dev/null || true
    done < <(process_tree "$2")
}

# wait_until SECONDS COMMAND…: asks ten times a second.
wait_until() {
    local tries=$(($1 * 10))
    shift
    while ! "$@"; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        sleep 0.1
    done
}

gone() { ! alive "$1"; }

# Kills a whole tree with SIGKILL and waits for it.
kill_tree() {
    local pid tree
    tree=$(process_tree "$1")
    for pid in $tree; do kill -KILL "$pid" 2>/dev/null || true; done
    for pid in $tree; do wait_until 10 gone "$pid" || return 1; done
}
