# Sourced by the other scripts: makes the environment .venv in the repository and installs bertjax into it, once.
#   environment EXTRAS       "" or, for example, "[dev]"
# PYTHON names the interpreter (default python3), which must be 3.11 or newer.

environment() {
    local python="${PYTHON:-python3}" line installed
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "launch: $python is not Python 3.11 or newer; set PYTHON to one that is" >&2
        return 2
    fi
    [ -x .venv/bin/python ] || "$python" -m venv .venv || return
    installed=".venv/installed$1"
    [ "$installed" -nt pyproject.toml ] && return
    line=$(.venv/bin/python -c 'import sys; print("py3%d" % sys.version_info.minor)')
    # Versions known to work, where this Python line has a list; the ranges of pyproject.toml otherwise.
    local constraints=()
    [ -f "launch/constraints-$line.txt" ] && constraints=(--constraint "launch/constraints-$line.txt")
    .venv/bin/python -m pip install --quiet --disable-pip-version-check "${constraints[@]}" --editable ".$1" || return
    touch "$installed"
}
