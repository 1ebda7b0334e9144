# TCP, with nothing but bash.
# shellcheck shell=bash

# Whether something listens.
listens() { (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null; }

# ask HOST PORT LENGTH: sends what stands on standard input and prints, in hexadecimal, the first
# bytes of the answer; false if nothing listens.
ask() {
    (
        exec 2>/dev/null
        exec 3<>"/dev/tcp/$1/$2" || exit 1
        cat >&3
        timeout 5 head -c "$3" <&3 | od -An -v -tx1 | tr -d ' \n'
    )
}

# A port nobody listens on, below the range that outgoing connections draw from. Somebody may take
# it before we do: whoever uses it tries again with another.
free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 12000))
        listens 127.0.0.1 "$port" || break
    done
    echo "$port"
}

# url_host URL, url_port URL DEFAULT, of scheme://user:password@host:port/path?query
url_authority() {
    local rest=${1#*://}
    rest=${rest%%[/?]*}
    echo "${rest##*@}"
}
url_host() {
    local authority
    authority=$(url_authority "$1")
    case $authority in
    \[*) authority=${authority#[} && echo "${authority%%]*}" ;;
    *) echo "${authority%%:*}" ;;
    esac
}
url_port() {
    local authority
    authority=$(url_authority "$1")
    case ${authority##*]} in
    *:*) echo "${authority##*:}" ;;
    *) echo "$2" ;;
    esac
}
