#!/usr/bin/env bash
# A run on a Cloud TPU VM or a whole slice of them, from here; needs gcloud, logged in, with a project.
#   launch/tpu_vm.sh create  NAME --zone=Z --type=v5litepod-16 [--spot] [--version=RUNTIME]
#   launch/tpu_vm.sh install NAME --zone=Z [--nfs=HOST:/EXPORT --mount=/mnt/DIRECTORY]
#   launch/tpu_vm.sh start   NAME --zone=Z [--type=T] [--max-restarts=R] pretrain --workdir=/mnt/DIRECTORY/bertjax/RUN ...
#   launch/tpu_vm.sh start   NAME --zone=Z --worker=0 prepare --workdir=/mnt/DIRECTORY/bertjax/RUN ...
#   launch/tpu_vm.sh status  NAME --zone=Z
#   launch/tpu_vm.sh logs    NAME --zone=Z [--worker=I] [--lines=N] [--follow]
#   launch/tpu_vm.sh stop    NAME --zone=Z
#   launch/tpu_vm.sh delete  NAME --zone=Z --yes
#   launch/tpu_vm.sh keep    NAME --zone=Z --type=T --spot [--nfs ... --mount ...] pretrain ...
# All take --project=P and --dry-run. `create` asks for a queued resource and waits until it is there. `start` begins the
# command on every worker, detached from ssh; with --type it refuses to run with fewer chips. With --worker it begins there
# alone and without the chips, which only all workers together can use. `keep` does all of this, looks every minute (or
# --every=SECONDS), creates again what Google took back, and ends with the exit code of the run; interrupted, it leaves the
# run alone and can be started again. `delete` refuses what was not made here.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/common.sh

action="" name="" zone="" project="" type="" version="" spot="" nfs="" mount="" max_restarts=10 worker="" lines=20
follow="" yes="" every=60
values="zone project type version nfs mount max-restarts worker lines every" flags="spot follow yes"
action_and_name "$values" "$flags" "$@"
[ "$zone" ] || fail "--zone is missing, as --zone=us-west4-a"
check_number max-restarts "$max_restarts"
check_number lines "$lines"
check_number every "$every"
[[ $worker =~ ^[0-9]*$ ]] || fail "--worker=$worker is not a number"
needs gcloud
place=(--zone="$zone" ${project:+--project="$project"})

on() { # WORKER WORD...: a command in the repository there
    local where=$1
    shift
    run gcloud compute tpus tpu-vm ssh "$name" "${place[@]}" --worker="$where" --command="cd bertjax && $(quoted "$@")"
}

# How many devices JAX sees on a slice of this type: v2 and v3 count cores and show each, v4 and v5p show two as one.
devices() {
    local size=${1##*-}
    check_number type "$size"
    case "$1" in
    v4-* | v5p-*) echo $((size / 2)) ;;
    *) echo "$size" ;;
    esac
}

default_version() {
    case "$type" in
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    v[234]-*) echo tpu-ubuntu2204-base ;;
    *) fail "--type=$type: name its software too, by --version" ;;
    esac
}

# Of the queued resource: ACTIVE, WAITING_FOR_RESOURCES, SUSPENDED and so on; ABSENT where there is none.
state() {
    local answer
    local query=(gcloud compute tpus queued-resources describe "$name" "${place[@]}" --format="value(state.state)")
    if [ "$dry_run" ]; then
        run "${query[@]}"
    elif answer=$("${query[@]}" 2>&1); then
        tail -n 1 <<<"$answer"
    elif [[ $answer == *NOT_FOUND* ]]; then
        echo ABSENT
    else
        echo "$answer" >&2
    fi
}

give_up() {
    echo "launch: $*" >&2
    exit 1
}

gone() {
    give_up "$name is $1; Google says why: gcloud compute tpus queued-resources describe $name --zone=$zone"
}

request() {
    [ "$type" ] || fail "--type is missing, as --type=v5litepod-16"
    version="${version:-$(default_version)}"
    devices "$type" >/dev/null
    run gcloud compute tpus queued-resources create "$name" --node-id="$name" "${place[@]}" --accelerator-type="$type" \
        --runtime-version="$version" --labels=made-by=bertjax-launch ${spot:+--spot}
}

install() { # chained: `set -e` does not hold in a function whose success is asked for
    local archive="build/$name.tar.gz"
    # What a run needs, committed or not.
    run mkdir -p build &&
        run tar -czf "$archive" --exclude=__pycache__ pyproject.toml README.md LICENSE bertjax configs launch &&
        run gcloud compute tpus tpu-vm scp "$archive" "$name:bertjax.tar.gz" "${place[@]}" --worker=all &&
        run rm "$archive" &&
        run gcloud compute tpus tpu-vm ssh "$name" "${place[@]}" --worker=all \
            --command="mkdir -p bertjax && tar -xzf bertjax.tar.gz -C bertjax" &&
        on all launch/install.sh --device=tpu ${nfs:+--nfs="$nfs"} ${mount:+--mount="$mount"}
}

start() {
    [ ${#words[@]} -gt 0 ] || fail "no command: pretrain --workdir=DIR, where DIR is one that all workers see"
    local variables=()
    if [ "$worker" ]; then
        variables=(JAX_PLATFORMS=cpu)
    else
        # The workers of a slice are known to Google's metadata server and to no variable: JAX asks there.
        variables=(BERTJAX_PROCESSES=auto ${type:+BERTJAX_EXPECT_DEVICES="$(devices "$type")"})
    fi
    on "${worker:-all}" launch/worker.sh start "$name" env "${variables[@]}" launch/run.sh --environment=launch/tpu.env \
        --max-restarts="$max_restarts" "${words[@]}"
}

delete() {
    local label
    note "only if this prints bertjax-launch"
    label=$(run gcloud compute tpus queued-resources describe "$name" "${place[@]}" \
        --format="value(tpu.nodeSpec[0].node.labels.made-by)")
    [ -z "$dry_run" ] || echo "$label"
    [ "$dry_run" ] || [ "$label" = bertjax-launch ] || fail "$name was not made by launch/tpu_vm.sh; delete it yourself"
    run gcloud compute tpus queued-resources delete "$name" "${place[@]}" --force --quiet
}

failures=0
# One look at an ACTIVE slice: starts what has not begun there, and ends this script when the run has ended.
look() {
    local seen codes code verdict=0
    # A slice that is being taken back does not answer; soon its state says so.
    seen=$(run gcloud compute tpus tpu-vm ssh "$name" "${place[@]}" --worker=all \
        --command="if cd bertjax 2>/dev/null; then launch/worker.sh status $name; else echo \$(hostname): absent; fi") ||
        return 0
    echo "$seen"
    note "where a worker says absent; start alone where it says died"
    if [ "$dry_run" ] || grep -q ': absent$' <<<"$seen"; then
        if install && start; then failures=0; else failures=$((failures + 1)); fi
        [ "$failures" -lt 3 ] || give_up "$name could not be installed or started three times"
    elif grep -q ': died$' <<<"$seen"; then
        start || true
    elif ! grep -q ': running' <<<"$seen"; then
        mapfile -t codes < <(sed -n 's/.*: ended //p' <<<"$seen")
        [ ${#codes[@]} -gt 0 ] || return 0
        for code in "${codes[@]}"; do
            verdict=$(worse "$verdict" "$code")
        done
        exit "$verdict"
    fi
}

case "$action" in
create)
    request
    note "every 30 s, until it prints ACTIVE"
    until [ "${now:-}" = ACTIVE ]; do
        now=$(state)
        [ -z "$dry_run" ] || { echo "$now" && exit; }
        [[ $now != @(FAILED|SUSPENDING|SUSPENDED) ]] || gone "$now"
        [ "$now" = ACTIVE ] || sleep 30
    done
    echo "$name is there, and is paid for until launch/tpu_vm.sh delete $name --zone=$zone --yes" >&2
    ;;
install) install ;;
start) start ;;
status)
    state
    on all launch/worker.sh status "$name"
    ;;
logs) on "${worker:-0}" launch/worker.sh logs "$name" --lines="$lines" ${follow:+--follow} ;;
stop) on all launch/worker.sh stop "$name" ;;
delete)
    [ "$yes" ] || fail "delete ends $name and what is on its disks: say --yes"
    delete
    ;;
keep)
    [ ${#words[@]} -gt 0 ] || fail "no command: pretrain --workdir=DIR, where DIR is one that all workers see"
    while :; do
        now=$(state)
        if [ "$dry_run" ]; then
            echo "$now"
            note "where there is none"
            request
            note "where it is SUSPENDED, that is, was taken back"
            delete
            note "where it is ACTIVE"
            look
            note "again every $every s, until every worker says ended"
            exit
        fi
        case "$now" in
        ABSENT) request ;;
        ACTIVE) look ;;
        SUSPENDED)
            echo "launch: $name was taken back; it is asked for again" >&2
            delete
            ;;
        FAILED) gone "$now" ;;
        esac
        sleep "$every"
    done
    ;;
*) fail "$action is none of create, install, start, status, logs, stop, delete, keep" ;;
esac
