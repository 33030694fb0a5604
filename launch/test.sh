#!/usr/bin/env bash
# Environment with the [dev] extra, then lint, types and tests. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
environment "[dev]"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
# Two processes. The tests of a file run in one of them, since they share what they compile; the longest files come first
# (tests/conftest.py).
.venv/bin/pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
