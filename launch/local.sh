#!/usr/bin/env bash
# `bertjax COMMAND` as several processes on this machine, which find each other by loopback and are seen by nobody else.
#   launch/local.sh [--dry-run] --processes=N [--devices=D] [--max-restarts=R] [--grace=SECONDS] COMMAND ...
# --devices: D virtual devices of the CPU for each process, as tests of many devices have them. Without it all processes
# see the same devices, which suits CPUs; for GPUs there is launch/gpu_node.sh. --max-restarts: all start again where one
# was preempted (75), lost another (6) or was killed. --grace: how long the others may take to save and end then (60).
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/common.sh

processes="" devices="" max_restarts=0
options "processes devices max-restarts grace" "" "$@"
[ "$processes" ] || fail "how many processes? launch/local.sh --processes=2 pretrain --workdir=DIR"
check_number processes "$processes"
check_number max-restarts "$max_restarts"
check_number grace "$grace"
[ "$processes" -gt 0 ] || fail "--processes=0: one at least"
[ ${#words[@]} -gt 0 ] || fail "no command: launch/local.sh --processes=2 pretrain --workdir=DIR"

shared=()
if [ "$devices" ]; then
    check_number devices "$devices"
    [ "$devices" -gt 0 ] || fail "--devices=0: one at least"
    shared=("BERTJAX_EXPECT_DEVICES=$((processes * devices))" JAX_PLATFORMS=cpu)
    shared+=("XLA_FLAGS=${XLA_FLAGS:+$XLA_FLAGS }--xla_force_host_platform_device_count=$devices")
fi

# A port at which nobody answers; each start has its own, since the old one may still be closing.
free_port() {
    local port=PORT
    until [ "$dry_run" ]; do
        port=$((20000 + RANDOM % 10000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo "$port"
}

every_process() {
    local i coordinator own
    coordinator=127.0.0.1:$(free_port)
    for ((i = 0; i < processes; i++)); do
        own=(env "BERTJAX_COORDINATOR=$coordinator" "BERTJAX_PROCESSES=$processes" "BERTJAX_PROCESS=$i" "${shared[@]}")
        if [ "$dry_run" ]; then
            run "${own[@]}" "$program" "${words[@]}"
        else
            # In a session of its own: Ctrl-C reaches it once, from here.
            alone setsid "${own[@]}" "$program" "${words[@]}"
        fi
    done
}

note "together, and again on 75, 6 or death by a signal, up to $max_restarts times"
if [ "$dry_run" ]; then every_process; else supervise "$max_restarts" every_process; fi
