#!/bin/sh
# Puts Ringside on the node whose file system is at $RINGSIDE_NODE, or takes it away.
#
#   install        copies programs, configuration and containerd's snippet; restarts containerd if the
#                  snippet was not there or changed; then waits
#   remove         the other way round; then waits
#   check          whether everything is installed as it is in this image
#   check-removed  whether nothing is left
#
# Once more does nothing: pods keep running, containerd is not restarted.
set -eu

image=${RINGSIDE_IMAGE:-/ringside}
node=${RINGSIDE_NODE:?names where the file system of the node is mounted}
prefix=$node/usr/local
containerd=$node/etc/containerd
snippet=$containerd/conf.d/ringside.toml
imports='imports = ["/etc/containerd/conf.d/*.toml"]'

say() {
    echo "ringside: $*"
}

fail() {
    echo "ringside: $*" >&2
    exit 1
}

# A program that runs cannot be written, but replaced.
put() {
    cmp -s "$1" "$2" && return 0
    mkdir -p "${2%/*}"
    cp "$1" "$2.ringside-new"
    mv "$2.ringside-new" "$2"
    say "installed ${2#"$node"}"
}

# containerd reads the snippet only if its own file imports it.
import_snippets() {
    file=$containerd/config.toml
    if [ ! -e "$file" ]; then
        mkdir -p "$containerd"
        printf 'version = 2\n%s\n' "$imports" > "$file"
        return 0
    fi
    if grep -q '^[[:space:]]*imports[[:space:]]*=' "$file"; then
        grep '^[[:space:]]*imports[[:space:]]*=' "$file" | grep -q '/etc/containerd/conf\.d/\*\.toml' && return 0
        fail "/etc/containerd/config.toml imports other files: add \"/etc/containerd/conf.d/*.toml\" to its imports"
    fi
    grep -q '^[[:space:]]*version[[:space:]]*=[[:space:]]*[23]' "$file" ||
        fail "/etc/containerd/config.toml is of version 1: see 'containerd config migrate'"
    # Before the first table: a key behind it would be the table's.
    { printf '%s\n' "$imports"; cat "$file"; } > "$file.ringside-new"
    mv "$file.ringside-new" "$file"
    say "added imports to /etc/containerd/config.toml"
}

restart_containerd() {
    say "restarting containerd"
    nsenter --target 1 --mount -- systemctl restart containerd
}

programs() {
    (cd "$image/bin" && ls)
}

installed() {
    for program in $(programs); do
        cmp -s "$image/bin/$program" "$prefix/bin/$program" || return 1
    done
    cmp -s "$image/share/ringside/containerd.toml" "$snippet"
}

install_all() {
    for program in $(programs); do
        put "$image/bin/$program" "$prefix/bin/$program"
    done
    [ -e "$node/etc/ringside/config.toml" ] ||
        put "$image/share/ringside/config.toml" "$node/etc/ringside/config.toml"
    cmp -s "$image/share/ringside/containerd.toml" "$snippet" && return 0
    import_snippets
    put "$image/share/ringside/containerd.toml" "$snippet"
    restart_containerd
}

# The configuration stays: it may be the user's.
remove_all() {
    if [ -e "$snippet" ]; then
        rm "$snippet"
        restart_containerd
    fi
    for program in $(programs); do
        rm -f "$prefix/bin/$program"
    done
    say "removed"
}

removed() {
    [ ! -e "$snippet" ] && [ ! -e "$prefix/bin/containerd-shim-ringside-v2" ]
}

# With the node's process ids (hostPID) this is not process 1, so that SIGTERM ends it.
wait_for_the_end() {
    say "done"
    exec sleep infinity
}

case ${1:-} in
install)
    install_all
    wait_for_the_end
    ;;
remove)
    remove_all
    wait_for_the_end
    ;;
check) installed ;;
check-removed) removed ;;
*) fail "usage: install.sh install|remove|check|check-removed" ;;
esac
