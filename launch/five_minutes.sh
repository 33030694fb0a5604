#!/usr/bin/env bash
# The whole path on one text: pretraining, a task with labels, an export, predictions; five commands.
#   launch/five_minutes.sh [--config.SECTION.FIELD=VALUE ...]   (of the pretraining)
# TEXT names the text (files or patterns; without it, the English that ships with Python), WORKDIR another directory than
# runs/five. The task is made of the text (launch/swapped_words.py): was a sentence so, or are two of its words swapped?
# Run again, it goes on where it stopped. The last line of standard output is one JSON object with the accuracy on dev.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
environment ""

workdir="${WORKDIR:-runs/five}"
bertjax() { .venv/bin/bertjax "$@"; }
[ -e "$workdir/labels/dev.tsv" ] || .venv/bin/python launch/swapped_words.py "${TEXT:-builtin}" "$workdir/labels"

bertjax prepare --config=quickstart --workdir="$workdir/model" --config.data.source="$workdir/labels/text.txt" \
    --config.run.steps=1000 "$@"
bertjax pretrain --workdir="$workdir/model"
bertjax finetune --config=finetune/classify --workdir="$workdir/task" --config.run.init_from="$workdir/model" \
    --config.task.train="$workdir/labels/train.tsv" --config.task.dev="$workdir/labels/dev.tsv" \
    --config.data.seq_len=64 --config.data.buckets=64
[ -e "$workdir/export" ] || bertjax export --workdir="$workdir/task" --out="$workdir/export"
bertjax predict --workdir="$workdir/export" "If the file does not exist, an error is raised." \
    "If the file not does exist, an error is raised."
echo "which labels are taken for which: $workdir/task/confusion.dev.png" >&2
echo "accuracy: the share of the sentences of dev that are told right; guessing makes 0.5, and without pretraining it" >&2
echo "stays there; expect 0.75 to 0.9" >&2
tail -n 1 <(.venv/bin/python -c 'import json, sys; print(json.dumps(json.load(open(sys.argv[1]))))' "$workdir/task/result.json")
