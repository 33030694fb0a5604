#!/usr/bin/env bash
# bertjax and the JAX of a device on this host, in .venv, and a shared directory where one is named; done once, harmless
# when run again.
#   launch/install.sh [--dry-run] [--device=tpu|cuda12|cuda13] [--nfs=HOST:/EXPORT --mount=/mnt/DIRECTORY]
# Without --device JAX is for CPUs. Beside a Python older than 3.11, as of Ubuntu 22.04, this user gets 3.12 by uv.
# --nfs mounts with sudo and makes MOUNT/bertjax, which belongs to you.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/common.sh
source launch/environment.sh

device="" nfs="" mount=""
options "device nfs mount" "" "$@"
[ ${#words[@]} -eq 0 ] || fail "${words[0]} is not asked for here"
[[ $device =~ ^(|tpu|cuda12|cuda13)$ ]] || fail "--device=$device is none of tpu, cuda12, cuda13"
if [ "$nfs$mount" ]; then
    [[ $nfs =~ ^[A-Za-z0-9.-]+:/.+$ ]] || fail "--nfs=$nfs is not HOST:/EXPORT"
    [[ $mount =~ ^/[A-Za-z0-9._/-]+$ ]] || fail "--mount=$mount is no absolute path of A-Z, a-z, 0-9 . _ / -"
    if ! command -v mount.nfs >/dev/null || [ "$dry_run" ]; then
        run sudo apt-get update --quiet
        run sudo apt-get install --yes --quiet nfs-common
    fi
    run sudo mkdir -p "$mount"
    note "unless it is mounted"
    if [ "$dry_run" ] || ! mountpoint -q "$mount"; then run sudo mount -t nfs "$nfs" "$mount"; fi
    # On the server root makes it, so it is given away. That of another user stays as it is.
    if [ "$dry_run" ] || [ ! -d "$mount/bertjax" ]; then
        run sudo install -d -o "${USER:-$(id -un)}" "$mount/bertjax"
    fi
fi

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}
note "where Python is older than 3.11"
if [ "$dry_run" ] || { ! new_enough "${PYTHON:-python3}" && ! new_enough .venv/bin/python; }; then
    run python3 -m pip install --user --quiet uv
    run python3 -m uv venv --quiet --seed --python 3.12 .venv
fi
if [ -z "$dry_run" ] && ! new_enough "${PYTHON:-python3}"; then PYTHON=.venv/bin/python; fi
run environment "${device:+[$device]}"
