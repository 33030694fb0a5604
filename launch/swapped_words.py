"""Make a task with labels of any text: is a sentence as it was, or are two words of it swapped that stood side by side?

    python launch/swapped_words.py SOURCE DIR

Writes DIR/text.txt, the first 85 % of the documents, for pretraining, and of the rest, which a model pretrained on
text.txt has never seen, DIR/train.tsv and DIR/dev.tsv with the columns text and label: `intact` or `swapped`, half of
each. SOURCE is what data.source takes: files, patterns, `builtin`.
"""

import random
import sys
from pathlib import Path

from bertjax.config.schema import DataConfig
from bertjax.corpus import units

LEAST, MOST = 6, 30  # words of a sentence


def swapped(sentence, rng):
    """The sentence with two neighbours swapped, which are different words and not its first."""
    words = sentence.split()
    places = [i for i in range(1, len(words) - 2) if words[i].lower() != words[i + 1].lower()]
    if not places:
        return None
    i = rng.choice(places)
    words[i], words[i + 1] = words[i + 1], words[i]
    return " ".join(words)


def main(source, directory):
    """Write the three files."""
    documents = list(units.documents(DataConfig(source=tuple(source.split(",")))))
    rng = random.Random(0)
    rng.shuffle(documents)
    cut = round(0.85 * len(documents))
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "text.txt").write_text("\n\n".join("\n".join(d) for d in documents[:cut]) + "\n", encoding="utf-8")
    rows = []
    for document in documents[cut:]:
        for sentence in document:
            if LEAST <= len(sentence.split()) <= MOST and "\t" not in sentence:
                other = swapped(sentence, rng) if rng.random() < 0.5 else None
                rows.append(f"{other}\tswapped" if other else f"{' '.join(sentence.split())}\tintact")
    cut = round(0.85 * len(rows))
    for name, chosen in (("train", rows[:cut]), ("dev", rows[cut:])):
        (directory / f"{name}.tsv").write_text("\n".join(["text\tlabel", *chosen]) + "\n", encoding="utf-8")
    print(f"{directory}: {len(documents):,} documents, {len(rows):,} sentences with labels", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
