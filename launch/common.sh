# Sourced by the scripts that start runs: options, --dry-run, messages, names, and when to start again.
# shellcheck shell=bash disable=SC2034  # those that source it use its variables
[ "${BASH_VERSINFO[0]}${BASH_VERSINFO[1]}" -ge 44 ] || { echo "launch: bash is older than 4.4" >&2; exit 2; }

dry_run="" # what --dry-run sets: commands are printed and nothing is done
words=()
program="${BERTJAX:-.venv/bin/bertjax}"

fail() {
    echo "launch: $*" >&2
    exit 2
}

# options "VALUES" "FLAGS" WORD...: `--some-name=X`, `--some-name X` and `--flag` in front of the first other word set
# the variables some_name and flag. That word and those behind it, which are for somebody else, are left in `words`.
options() {
    local values=" $1 " flags=" $2 dry-run " key
    shift 2
    while [[ ${1:-} == --?* ]]; do
        [[ $1 == *=* ]] && set -- "${1%%=*}" "${1#*=}" "${@:2}"
        key=${1#--}
        if [[ $flags == *" $key "* ]]; then
            printf -v "${key//-/_}" yes
            shift
        elif [[ $values == *" $key "* ]]; then
            [ $# -ge 2 ] || fail "$1 needs a value"
            printf -v "${key//-/_}" %s "$2"
            shift 2
        else
            fail "$1 is no option of $0; its first lines list them"
        fi
    done
    [ "${1:-}" != -- ] || shift
    words=("$@")
}

# action_and_name "VALUES" "FLAGS" WORD...: ACTION NAME, with options before, between and behind them. What follows is left
# in `words`.
action_and_name() {
    options "$@"
    action=${words[0]:-}
    [ "$action" ] || fail "no action; the first lines of $0 list them"
    options "$1" "$2" "${words[@]:1}"
    name=${words[0]:-}
    check_name "$name"
    options "$1" "$2" "${words[@]:1}"
}

# One line that a shell reads as these words.
quoted() {
    local word line="" quote="'\\''"
    for word; do
        [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word="'${word//\'/$quote}'"
        line+=" $word"
    done
    printf '%s\n' "${line# }"
}

run() {
    if [ "$dry_run" ]; then quoted "$@"; else "$@"; fi
}

# What a script waits for or decides, where --dry-run has no command to print.
note() {
    [ -z "$dry_run" ] || echo "# $*"
}

needs() {
    [ "$dry_run" ] || command -v "$1" >/dev/null || fail "$1 is not installed or not on PATH"
}

# Names become labels, host names and paths.
check_name() {
    [[ $1 =~ ^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$ ]] ||
        fail "'$1' is no name: up to 40 of a-z, 0-9 and -, beginning with a letter, not ending with -"
}

check_number() {
    [[ $2 =~ ^[0-9]{1,6}$ ]] || fail "--$1=$2 is not a whole number"
}

# Preempted, a peer that died, death by a signal. Any other code would only come again: usage, data, checkpoint,
# numbers, storage, memory (bertjax/errors.py), or a bug.
worth_a_restart() {
    [ "$1" -eq 75 ] || [ "$1" -eq 6 ] || [ "$1" -gt 128 ]
}

# Of the exit codes of two processes of a run, the one that is the run's. A code that would only come again counts more than
# one that is worth a restart: the peers of a process that stopped with 3 end with 6. Otherwise the first counts.
worse() {
    if [ "$1" -eq 0 ] || { [ "$2" -ne 0 ] && worth_a_restart "$1" && ! worth_a_restart "$2"; }; then
        echo "$2"
    else
        echo "$1"
    fi
}

# supervise RESTARTS START...: START begins processes in the background and adds their ids to `pids`. They are waited for,
# and all started again, up to RESTARTS times, where the exit code is worth it. SIGTERM, SIGINT and SIGHUP are passed on as
# SIGTERM, so that the run saves, and end it. When one has ended before its time, the others have `grace` seconds to save
# and end: they cannot go on without it, and one that hangs would not say so.
grace=60
supervise() {
    local restarts=$1 count=0 verdict
    shift
    stopping=""
    trap 'stopping=yes; kill -TERM "${pids[@]}" 2>/dev/null || true' TERM INT HUP
    while :; do
        pids=()
        "$@"
        [ -z "$stopping" ] || kill -TERM "${pids[@]}" 2>/dev/null || true # a signal while they were being started
        together && verdict=0 || verdict=$?
        if [ "$stopping" ] || [ "$count" -ge "$restarts" ] || ! worth_a_restart "$verdict"; then
            trap - TERM INT HUP
            return "$verdict"
        fi
        count=$((count + 1))
        echo "launch: exit code $verdict; start again, $count of $restarts" >&2
    done
}

# The exit code of all `pids` together, when all have ended. Each is waited for when it is gone, since a signal ends the
# wait and not the process.
together() {
    local verdict=0 since="" code i left=("${pids[@]}") running
    while [ ${#left[@]} -gt 0 ]; do
        sleep 0.2
        running=$(jobs -rp)
        for i in "${!left[@]}"; do
            [[ $'\n'$running$'\n' != *$'\n'${left[i]}$'\n'* ]] || continue
            wait "${left[i]}" 2>/dev/null && code=0 || code=$?
            unset "left[i]"
            verdict=$(worse "$verdict" "$code")
            [ "$code" -eq 0 ] || since=${since:-$SECONDS}
            [ ${#pids[@]} -eq 1 ] || [ "$code" -eq 0 ] || echo "launch: process $i ended with exit code $code" >&2
        done
        if [ "$since" ] && [ $((SECONDS - since)) -ge "$grace" ] && [ ${#left[@]} -gt 0 ]; then
            kill -KILL "${left[@]}" 2>/dev/null || true
        fi
    done
    return "$verdict"
}

# A START for one process.
alone() {
    "$@" &
    pids+=($!)
}
