#!/usr/bin/env bash
# The main job on a fresh machine: environment, tokenizer, data set, pretraining, masked words,
# minimal pairs, evaluation.
#   launch/quickstart.sh [--config.SECTION.FIELD=VALUE ...]
# Run again, it goes on where it stopped, or says that it is done. WORKDIR names another directory than runs/quickstart.
# Progress goes to standard error; the last line of standard output is one JSON object.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
environment ""

workdir="${WORKDIR:-runs/quickstart}"
bertjax() { .venv/bin/bertjax "$1" --workdir="$workdir" "${@:2}"; }

bertjax tokenizer --config=quickstart "$@" # the directory remembers this
bertjax prepare
bertjax pretrain
bertjax fill-mask "The function returns a [MASK] of the given string." "If the file does [MASK] exist, an error is raised." \
    "Return the [MASK] of elements in the list."
.venv/bin/bertjax score "$workdir" --pairs=builtin --out="$workdir/pairs.png"
echo "learning curves: $workdir/curves.png" >&2
echo "above: % of pairs of sentences whose good one the model finds likelier than the bad one; guessing makes 50" >&2
echo "context_gain: by how many nats a held-out word is better predicted than without a look at the words around it" >&2
bertjax evaluate
