#!/usr/bin/env bash
# `bertjax COMMAND` as one process, with the environment of its devices, started again where its exit code is worth it.
#   launch/run.sh [--dry-run] [--environment=launch/tpu.env] [--max-restarts=R] COMMAND ...
# BERTJAX names the program (default .venv/bin/bertjax). Paths are relative to the repository.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/common.sh

environment="" max_restarts=0
options "environment max-restarts" "" "$@"
check_number max-restarts "$max_restarts"
[ ${#words[@]} -gt 0 ] || fail "no command: launch/run.sh pretrain --workdir=DIR"
if [ "$environment" ]; then
    [ -r "$environment" ] || fail "$environment cannot be read"
    run source "$environment"
fi
note "again on 75, 6 or death by a signal, up to $max_restarts times"
if [ "$dry_run" ]; then
    run "$program" "${words[@]}"
else
    supervise "$max_restarts" alone "$program" "${words[@]}"
fi
