"""Files of labelled examples, with a rule that a model of seconds can learn, for each kind of task; their recipe."""

import json
import random

from small import tiny

from bertjax.config.recipe import from_dict, to_dict

WORDS = [
    "the",
    "a",
    "king",
    "queen",
    "river",
    "house",
    "old",
    "new",
    "sees",
    "has",
    "near",
    "under",
    "good",
    "bad",
    "Anna",
    "Berlin",
]
MODEL = {
    "vocab_size": 120,
    "num_layers": 2,
    "positions": "rotary",
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "classifier_dropout": 0.0,
}
OWN = {
    "classify": {"text": "text", "label": "label"},
    "regress": {"text": "text", "pair": "pair", "label": "score"},
    "tag": {},
    "span": {"max_question": 8, "stride": 4, "max_answer": 4},
    "choice": {"text": "text", "endings": ("first", "second"), "label": "right"},
}


def write(directory, kind, count, seed):
    """A file of so many examples."""
    rng, rows = random.Random(seed), []
    for number in range(count):
        words = rng.choices(WORDS, k=rng.randint(4, 9))
        if kind == "classify":
            words[rng.randrange(len(words))] = label = rng.choice(["good", "bad"])
            words = [w for w in words if w == label or w not in ("good", "bad")]
            rows.append(f"{' '.join(words)}\t{label}")
        elif kind == "regress":
            pair = [w for w in rng.choices(WORDS, k=5) if w != "good"] + ["good"] * rng.randint(0, 1)
            rows.append(f"{' '.join(words)}\t{' '.join(pair)}\t{5.0 * (pair[-1] == 'good')}")
        elif kind == "choice":
            right = rng.randint(0, 1)
            endings = ["good" if place == right else "bad" for place in (0, 1)]
            rows.append("\t".join([" ".join(words), *endings, str(right)]))
        elif kind == "tag":
            names = {"Anna": "B-PER", "Berlin": "B-LOC"}
            rows.append("".join(f"{w}\t{names.get(w, 'O')}\n" for w in words))
        else:
            context = " ".join([*words, "king", rng.choice(["old", "new"]), *words[:2]])
            answer = context.split("king ")[-1].split()[0]
            at = context.rindex("king ") + 5
            answers = [{"text": answer, "answer_start": at}] if number % 4 else []
            question = {"id": str(number), "question": "the king ?", "answers": answers, "is_impossible": not answers}
            rows.append({"context": context if answers else context.replace("king", "queen"), "qas": [question]})
    path = directory / f"{kind}{count}.{'json' if kind == 'span' else 'conll' if kind == 'tag' else 'tsv'}"
    header = {"classify": "text\tlabel", "regress": "text\tpair\tscore", "choice": "text\tfirst\tsecond\tright"}
    if kind == "span":
        path.write_text(json.dumps({"version": "v2.0", "data": [{"title": "t", "paragraphs": rows}]}))
    else:
        path.write_text("\n".join([header[kind], *rows] if kind in header else rows) + "\n")
    return str(path)


def config_of(directory, kind, **sections):
    """The config of a run that learns the rule of such a file."""
    values = to_dict(tiny(model=MODEL, data={"packing": 2 if kind == "choice" else 1}))
    values["task"] |= {"kind": kind, "epochs": 3.0, **OWN[kind]}
    values["task"] |= {"train": (write(directory, kind, 160, 1),), "dev": (write(directory, kind, 40, 2),)}
    values["optim"] |= {"lr": 1e-2, "bias_correction": True, "shift_decay": True}
    for section, fields in sections.items():
        values[section] |= fields
    return from_dict(values)
