#!/usr/bin/env bash
# Environment with the [dev] extra, then lint, types and tests. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
environment "[dev]"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
# Two processes, a file in one of them: tests of a file share what they compiled. Files in the order of tests/conftest.py.
.venv/bin/pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
