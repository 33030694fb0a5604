"""Corpora of other alphabets, made by rule: DNA with a planted motif, molecules, Japanese."""

import itertools

import numpy as np

MOTIF = "GATTACAGCCGTATGCAACTGA"


def dna(count, *, length=42, seed=0):
    """Random sequences, each with the motif at a random place."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        sequence = "".join(rng.choice(list("ACGT"), length))
        at = int(rng.integers(0, length - len(MOTIF)))
        yield sequence[:at] + MOTIF + sequence[at + len(MOTIF) :]


def smiles():
    """Benzene rings with two substituents, some with a name behind them, and salts beside a ring of number %12."""
    groups = ["O", "Cl", "Br", "C(=O)O", "N", "[N+](=O)[O-]", "C#N", "S(N)(=O)=O", "[C@@H](N)C(=O)O", "OC"]
    for number, (one, other) in enumerate(itertools.product(groups, groups)):
        yield f"{one}c1ccc({other})cc1 molecule-{number}" if one[0] != "[" else f"C{one}c1cc({other})ccc1"
        yield f"CC({other})C%12CCCCC%12.[Na+].[Cl-]"


def japanese():
    """Documents of three sentences, without any white space."""
    people, things = ["私", "彼女", "先生", "学生", "母"], ["本", "新聞", "手紙", "雑誌"]
    for who, what, where in itertools.product(people, things, ["学校", "図書館", "部屋"]):
        yield f"{who}は{where}で{what}を読んだ。それはとても面白かった！「{what}が好きだ。」と{who}は言った。"
