"""What the published code for SQuAD gives for random questions, kept where it is not installed: in 2026 it is no longer
part of transformers.

`PYTHONPATH=. python tests/official.py`, in an environment with transformers 4, writes official.json anew.
"""

import json
import random
import tempfile
from pathlib import Path
from types import SimpleNamespace

FILE = Path(__file__).with_suffix(".json")
SEEDS = range(8)
BEST, LONGEST, THRESHOLD = 6, 4, 0.5
"""Of the answers: `task.best_answers`, `task.max_answer`, `task.null_threshold`."""

PARTS = [
    "the",
    "A",
    "an",
    "Theatre",
    "IN 1973",
    "oil",
    "crisis,",
    "«oil»",
    "it's",
    "U.S.",
    "10%",
    "\u00a0",
    "–",
    "Ünder",
    "a",
]
EDGES = ["", " ", "the", ".", "the.", "a an the", "!?", "\n"]


def text(rng, edges):
    """Some words; with `edges`, also what is nothing once articles and punctuation are gone."""
    if edges and rng.random() < 0.2:
        return rng.choice(EDGES)
    return rng.choice(["", " "]).join(["oil"] * (not edges) + rng.choices(PARTS, k=rng.randint(1, 5)))


def questions(seed, *, edges):
    """[(right answers, given answer, null odds)], those of the last seeds all with an answer, or all without."""
    rng = random.Random(seed)
    unanswerable = {6: 0.0, 7: 1.0}.get(seed, 0.4)
    found = []
    for _ in range(60):
        right = [] if rng.random() < unanswerable else [text(rng, edges) for _ in range(rng.randint(1, 4))]
        known = right and rng.random() < 0.6
        found.append((right, rng.choice(right) if known else text(rng, edges), rng.gauss(-2 if known else 1, 2)))
    return found


def windows(seed):
    """A context and its windows: [(token indices of its words or None, logits of starts and ends, max context)].

    Logits of every other seed have few values, so that many are equal.
    """
    rng = random.Random(seed)
    words = [rng.choice(["one", "two", "three", "four", "five"]) for _ in range(25)]

    def logit():
        return float(rng.randint(-3, 3)) if seed % 2 else rng.gauss(0.0, 3.0)

    found = []
    for first in (0, 6, 12):
        tokens = [None] * 5 + list(range(first, first + 13)) + [None]
        logits = [(logit(), logit()) for _ in tokens]
        logits[0] = logits[0][0] + seed % 8, logits[0][1] + seed % 8  # no answer becomes likelier
        found.append((tokens, logits, [rng.random() < 0.7 for _ in tokens]))
    return words, found


def metrics(seed, *, edges):
    """By the script: all that it reports of answers that are kept, and the thresholds that would be best."""
    from transformers.data.metrics import squad_metrics

    asked = questions(seed, edges=edges)
    examples = [
        SimpleNamespace(qas_id=i, answers=[{"text": t} for t in right]) for i, (right, _, _) in enumerate(asked)
    ]
    given = {i: answer for i, (_, answer, _) in enumerate(asked)}
    odds = {i: number for i, (_, _, number) in enumerate(asked)}
    return squad_metrics.squad_evaluate(examples, given, odds, no_answer_probability_threshold=1e9)


def answers(seed, *, null):
    """By the script: the answer, the best of all with their probabilities, the null odds."""
    from transformers.data.metrics import squad_metrics

    words, found = windows(seed)
    features, results = [], []
    for number, (tokens, logits, max_context) in enumerate(found):
        features.append(
            SimpleNamespace(
                example_index=0,
                unique_id=number,
                tokens=["[X]" if token is None else words[token] for token in tokens],
                token_to_orig_map={i: token for i, token in enumerate(tokens) if token is not None},
                token_is_max_context=dict(enumerate(max_context)),
            )
        )
        starts, ends = zip(*logits, strict=True)
        results.append(SimpleNamespace(unique_id=number, start_logits=list(starts), end_logits=list(ends)))
    example = SimpleNamespace(qas_id="q", doc_tokens=words)
    tokenizer = SimpleNamespace(convert_tokens_to_string=" ".join)
    with tempfile.TemporaryDirectory() as folder:
        names = [f"{folder}/{name}" for name in ("answers", "best", "odds")]
        squad_metrics.compute_predictions_logits(
            [example], features, results, BEST, LONGEST, True, *names, False, null, THRESHOLD, tokenizer
        )
        text, best, *odds = (json.loads(Path(name).read_text())["q"] for name in names[: 3 if null else 2])
    return {"text": text, "best": [[one["text"], one["probability"]] for one in best], "odds": odds}


def computed():
    """All of it."""
    return {
        "edges": [metrics(seed, edges=True) for seed in SEEDS],
        "metrics": [metrics(seed, edges=False) for seed in SEEDS],
        "answers": [answers(seed, null=False) for seed in SEEDS],
        "answers_or_none": [answers(seed, null=True) for seed in SEEDS],
    }


def read():
    """What `computed` gave."""
    return json.loads(FILE.read_text())


if __name__ == "__main__":
    kept = json.loads(json.dumps(computed()), parse_float=lambda number: round(float(number), 9))
    lines = [f'"{name}": {json.dumps(values)}' for name, values in kept.items()]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
