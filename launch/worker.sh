#!/usr/bin/env bash
# A command on this host that outlives the terminal or the ssh session it was started from.
#   launch/worker.sh [--dry-run] start NAME COMMAND ...       e.g. start tiny launch/run.sh pretrain --workdir=runs/tiny
#   launch/worker.sh [--dry-run] status NAME                  running PID, ended CODE, died (no code) or absent
#   launch/worker.sh [--dry-run] logs NAME [--lines=N] [--follow]
#   launch/worker.sh [--dry-run] stop NAME                    SIGTERM, and up to two minutes of waiting for the save
# ~/.bertjax/NAME holds the log, the process id and the exit code; a lock tells whether NAME runs, since the kernel frees
# it when the last of its processes ends, however that happens.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/common.sh

action="" name="" lines=20 follow=""
action_and_name "lines" "follow" "$@"
directory="$HOME/.bertjax/$name"

lock() {
    exec 9>>"$directory/lock"
    flock "$@" 9
}

status() {
    if [ ! -e "$directory/lock" ]; then
        echo "$(hostname): absent"
    elif ! lock -n; then
        echo "$(hostname): running $(cat "$directory/pid")"
    elif [ -e "$directory/exit" ]; then
        echo "$(hostname): ended $(cat "$directory/exit")"
    else
        echo "$(hostname): died"
    fi
}

case "$action" in
start)
    [ ${#words[@]} -gt 0 ] || fail "no command to start"
    needs flock
    needs setsid
    if [ "$dry_run" ]; then
        note "in a session of its own, with its output in ~/.bertjax/$name/log:"
        run "${words[@]}"
        exit
    fi
    mkdir -p "$directory"
    lock -n || fail "$name runs already on $(hostname): launch/worker.sh status $name"
    rm -f "$directory/exit"
    setsid launch/worker.sh inside "$name" "${words[@]}" </dev/null >>"$directory/log" 2>&1 &
    echo $! >"$directory/pid"
    echo "$(hostname): started $!"
    ;;
inside) # what `start` begins; it inherits the lock
    supervise 0 alone "${words[@]}" && code=0 || code=$?
    echo "$code" >"$directory/exit.new"
    mv "$directory/exit.new" "$directory/exit"
    ;;
status)
    if [ "$dry_run" ]; then note "asks the lock ~/.bertjax/$name/lock"; else status; fi
    ;;
logs)
    check_number lines "$lines"
    run tail -n "$lines" ${follow:+-F} "$directory/log"
    ;;
stop)
    if [ "$dry_run" ]; then
        note "SIGTERM to the process in ~/.bertjax/$name/pid if $name runs, and a wait until it has saved"
        exit
    fi
    if [ -e "$directory/lock" ] && ! lock -n; then
        pid=$(cat "$directory/pid")
        # If the first process was killed, what it left is the rest of its session. A dead one has no command line.
        grep -qs . "/proc/$pid/cmdline" || pid="-$pid"
        kill -TERM -- "$pid" 2>/dev/null || true
        lock -w 120 || echo "$(hostname): $name does not end; it may still be saving" >&2
    fi
    status
    ;;
*) fail "$action is none of start, status, logs, stop" ;;
esac
