# Installing what is missing: Debian's packages, as root only.
# shellcheck shell=bash

# apt_install PACKAGE…: false if it cannot be done here. The packages' services are not started:
# they could take the ports of others, and we start our own.
apt_install() {
    is_root && has apt-get || return 1
    say "installing Debian's packages: $*"
    local policy=/usr/sbin/policy-rc.d ours='' status=0
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && ours=1
    fi
    {
        apt_get install "$@" || { apt_get update && apt_get install "$@"; }
    } >&2 || status=1
    [ -z "$ours" ] || rm -f "$policy"
    return "$status"
}

apt_get() {
    local verb=$1
    shift
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends "$verb" "$@" 9>&-
}
