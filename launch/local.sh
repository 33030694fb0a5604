#!/usr/bin/env bash
# Several processes of one run on this machine, found by loopback and seen by nobody else:
#   launch/local.sh --processes N [--devices D] [--max-restarts R] COMMAND...      runs `bertjax COMMAND...` in each
#   --devices D        D virtual CPU devices for each process; without it all share the machine's, which CPU can do
#   --max-restarts R   all start again, at most R times, where one was preempted (75), lost a peer (6) or was killed
#   --grace SECONDS    for the others to save and end, when one has ended before its time (60)
#   --dry-run          print what would run
# What only process 0 says goes to the terminal. SIGTERM, SIGINT and SIGHUP are passed on: a run saves and ends with 75.
set -uo pipefail

usage() { sed -n '2,7s/^# //p' "$0" >&2; echo "launch/local.sh: $1" >&2; exit 2; }
number() { [[ "$2" =~ ^[1-9][0-9]*$ || "$2" == "$3" ]] || usage "$1 = '$2': must be a whole number"; }

processes='' devices='' restarts=0 grace=60 dry=''
while [ $# -gt 0 ]; do
    case "$1" in
        --processes) processes="${2-}"; number "$1" "$processes" -; shift 2 ;;
        --devices) devices="${2-}"; number "$1" "$devices" -; shift 2 ;;
        --max-restarts) restarts="${2-}"; number "$1" "$restarts" 0; shift 2 ;;
        --grace) grace="${2-}"; number "$1" "$grace" 0; shift 2 ;;
        --dry-run) dry=yes; shift ;;
        -*) usage "$1: there is no such option" ;;
        *) break ;;
    esac
done
[ -n "$processes" ] || usage "--processes: is missing"
[ $# -gt 0 ] || usage "COMMAND: is missing"
cd "$(dirname "$0")/.." || exit 2
bertjax=(.venv/bin/python -m bertjax)
[ -x .venv/bin/python ] || bertjax=(python3 -m bertjax)
[ -z "${BERTJAX_PYTHON-}" ] || bertjax=("$BERTJAX_PYTHON" -m bertjax)

if [ -n "$devices" ]; then
    export JAX_PLATFORMS=cpu BERTJAX_EXPECT_DEVICES=$((processes * devices))
    export XLA_FLAGS="${XLA_FLAGS-} --xla_force_host_platform_device_count=$devices"
fi
export BERTJAX_PROCESSES=$processes

free_port() {
    "${bertjax[0]}" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

children=() asked=''
pass_on() {
    asked=yes
    kill -s "$1" "${children[@]}" 2>/dev/null
}
for name in TERM INT HUP; do trap "pass_on $name" "$name"; done

# The code of all processes together: the first of them that says why it ended, which is neither 6 (it lost another) nor a
# signal, and else 6.
together() {
    local code worst=0
    for code in "$@"; do
        case "$code" in
            0) ;;
            6 | 1[0-9][0-9]) [ "$worst" -ne 0 ] || worst=6 ;;
            75) [ "$worst" -eq 2 ] || [ "$worst" -eq 0 ] && worst=75 ;;
            *) echo "$code"; return ;;
        esac
    done
    echo "$worst"
}

once() {
    local i pid code codes=()
    export BERTJAX_COORDINATOR="127.0.0.1:$(free_port)"
    children=()
    for ((i = 0; i < processes; i++)); do
        # In a session of its own: Ctrl-C reaches it once, from here.
        BERTJAX_PROCESS=$i setsid "${bertjax[@]}" "$@" &
        children+=($!)
    done
    # Each is waited for only when it is gone: a signal to this script ends `wait`, not the process.
    local -A left=() number=()
    local since=''
    for i in "${!children[@]}"; do
        left[${children[i]}]=yes
        number[${children[i]}]=$i
    done
    while [ "${#left[@]}" -gt 0 ]; do
        for pid in "${!left[@]}"; do
            running "$pid" && continue
            wait "$pid" 2>/dev/null
            code=$?
            codes+=("$code")
            case "$code" in 0 | 75) ;; *) echo "launch/local.sh: process ${number[$pid]} ended with $code" >&2 ;; esac
            unset "left[$pid]"
            [ "$code" -eq 0 ] || since="${since:-$SECONDS}"
        done
        # One has failed, and the others cannot go on without it: one that hangs would never say so.
        if [ -n "$since" ] && [ $((SECONDS - since)) -ge "$grace" ]; then kill -s KILL "${!left[@]}" 2>/dev/null; fi
        sleep 0.2
    done
    return "$(together "${codes[@]}")"
}

running() {
    local state
    { read -r _ _ state _ <"/proc/$1/stat"; } 2>/dev/null && [ "$state" != Z ]
}

if [ -n "$dry" ]; then
    for ((i = 0; i < processes; i++)); do
        printf 'BERTJAX_COORDINATOR=127.0.0.1:PORT BERTJAX_PROCESSES=%s BERTJAX_PROCESS=%s' "$processes" "$i"
        [ -z "$devices" ] || printf ' BERTJAX_EXPECT_DEVICES=%s JAX_PLATFORMS=cpu' "$BERTJAX_EXPECT_DEVICES"
        printf ' %q' "${bertjax[@]}" "$@"
        printf '\n'
    done
    exit 0
fi
for ((attempt = 0; ; attempt++)); do
    once "$@"
    code=$?
    case "$code" in 6 | 75) ;; *) exit "$code" ;; esac
    if [ -n "$asked" ] || [ "$attempt" -ge "$restarts" ]; then exit "$code"; fi
    echo "launch/local.sh: ended with $code; starting again ($((attempt + 1)) of $restarts)" >&2
done
