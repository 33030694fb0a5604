#!/usr/bin/env bash
# `bertjax COMMAND` on the GPUs of this host: as one process, or as one for each GPU; started again where its exit code is
# worth it.
#   launch/gpu_node.sh [--dry-run] [--gpus=N] [--per=host|gpu] [--max-restarts=R]
#       [--hosts=N --host=I --coordinator=HOST:PORT] COMMAND ...
# --gpus: how many GPUs of this host; without it nvidia-smi is asked. --per=host (the default) is one process with all
# GPUs; --per=gpu costs more host memory and start-up, and is worth a try where one Python process cannot keep eight
# GPUs busy. With several hosts the same command is started on each, with its own --host, counted from 0; host 0 is the
# coordinator, and its port must be open to the others and to nobody else: the connection has no password.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/common.sh

gpus="" per=host max_restarts=0 hosts=1 host=0 coordinator=""
options "gpus per max-restarts hosts host coordinator" "" "$@"
[ ${#words[@]} -gt 0 ] || fail "no command: launch/gpu_node.sh pretrain --workdir=DIR"
if [ -z "$gpus" ]; then
    [ -z "$dry_run" ] || fail "--dry-run asks no GPU: say --gpus=N"
    needs nvidia-smi
    gpus=$(nvidia-smi --list-gpus | wc -l)
fi
check_number gpus "$gpus"
check_number hosts "$hosts"
check_number host "$host"
check_number max-restarts "$max_restarts"
[ "$gpus" -gt 0 ] || fail "there is no GPU"
[ "$host" -lt "$hosts" ] || fail "--host=$host: hosts are counted from 0 to $((hosts - 1))"
case "$per" in
host) local_processes=1 ;;
gpu) local_processes=$gpus ;;
*) fail "--per=$per is neither host nor gpu" ;;
esac
processes=$((hosts * local_processes))
if [ "$hosts" -gt 1 ]; then
    [[ $coordinator == ?*:+([0-9]) ]] || fail "several hosts need --coordinator=HOST:PORT, an address of host 0"
fi

# What the process I of this host is told: who it is among all, which GPUs are its own, how many there must be together.
variables() {
    local own=$1
    [ "$per" = gpu ] || own=$(seq -s , 0 $((gpus - 1)))
    echo "BERTJAX_EXPECT_DEVICES=$((hosts * gpus))"
    [ "$processes" -eq 1 ] || printf '%s\n' "BERTJAX_COORDINATOR=${coordinator:-127.0.0.1:8476}" \
        "BERTJAX_PROCESSES=$processes" "BERTJAX_PROCESS=$((host * local_processes + $1))" "BERTJAX_LOCAL_DEVICES=$own"
}

every_process() {
    local i own
    for ((i = 0; i < local_processes; i++)); do
        mapfile -t own < <(variables "$i")
        if [ "$dry_run" ]; then
            run env "${own[@]}" "$program" "${words[@]}"
        else
            alone env "${own[@]}" "$program" "${words[@]}"
        fi
    done
}

run source launch/gpu.env
note "together, and again on 75, 6 or death by a signal, up to $max_restarts times"
if [ "$dry_run" ]; then every_process; else supervise "$max_restarts" every_process; fi
