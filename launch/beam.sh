#!/usr/bin/env bash
# `bertjax ARGUMENTS` in an environment with Apache Beam, .venv-beam, which is made on the first call.
#   launch/beam.sh prepare --runner=beam --config=FILE.py --workdir=DIR [--beam_options="--runner=FlinkRunner ..."]
# Beam needs older versions of some packages than .venv has. So this environment gets what Beam needs and what `prepare`
# imports, and bertjax without its other dependencies. BEAM_EXTRAS="[gcp]" adds what DataflowRunner needs.
# PYTHON names the interpreter (default python3), 3.11 or newer; the workers must have the same.
set -euo pipefail
cd "$(dirname "$0")/.."

python="${PYTHON:-python3}" extras="${BEAM_EXTRAS:-}"
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "launch: $python is not Python 3.11 or newer; set PYTHON to one that is" >&2
    exit 2
fi
[ -x .venv-beam/bin/python ] || "$python" -m venv .venv-beam
done=".venv-beam/installed$extras"
if ! [ "$done" -nt pyproject.toml ] || ! [ "$done" -nt launch/constraints-beam.txt ]; then
    pip=(.venv-beam/bin/python -m pip install --quiet --disable-pip-version-check)
    "${pip[@]}" --constraint launch/constraints-beam.txt "apache-beam$extras" absl-py array-record ml-collections \
        numpy protobuf pyarrow sentencepiece tensorflow-datasets tokenizers tqdm
    "${pip[@]}" --no-deps --editable .
    touch "$done"
fi
exec .venv-beam/bin/bertjax "$@"
