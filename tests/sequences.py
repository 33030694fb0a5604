"""Corpora made by rule: DNA with a planted motif, molecules, Japanese, Arabic, English articles, old letters."""

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


def arabic():
    """Documents of three sentences, with hamza on its seats."""
    people, things = ["أحمد", "الأستاذ", "مؤمن", "رئيس القسم", "آدم"], ["كتابا", "مقالا", "قصة", "رسالة"]
    for who, what, where in itertools.product(people, things, ["المكتبة", "المدرسة", "الغرفة"]):
        yield f"ذهب {who} إلى {where} ثم قرأ {what}. هل أعجبه ذلك؟ نعم، وسأل د. سمير عنه."


def articles(count, *, seed=0):
    """English documents as of an encyclopedia: a title, then paragraphs of a few sentences."""
    rng = np.random.default_rng(seed)
    places, kinds = ["Aldham", "Brome", "Corley", "Denholm", "Eastry"], ["village", "river", "castle", "church", "mill"]
    verbs = ["was built in", "was first named in", "fell to ruin after", "was restored in", "belongs to a family since"]
    for number in range(count):
        name = f"{rng.choice(places)} {rng.choice(kinds).title()}"
        told = [f"The {rng.choice(kinds)} {rng.choice(verbs)} {rng.integers(1100, 1990)}." for _ in range(9)]
        first = f"{name} is a {rng.choice(kinds)} near {rng.choice(places)}, No. {number} of its kind."
        yield "\n".join([name, " ".join([first, *told[:5]]), " ".join(told[5:])])


def letters(count, *, seed=0):
    """French and German letters of a few lines, one of which is a greeting."""
    rng = np.random.default_rng(seed)
    french = [
        "J'ai reçu votre lettre à Orléans.",
        "L'été fut très beau.",
        "Où êtes-vous allée?",
        "Voilà tout, à bientôt.",
    ]
    german = [
        "Ich hörte es gestern in Köln.",
        "Das Wetter war schön.",
        "Grüße bitte deine Mutter.",
        "Früher schriebst du öfter.",
    ]
    for number in range(count):
        greeting, body = [("Chère Hélène,", french), ("Lieber Jürgen,", german)][number % 2]
        yield "\n".join([greeting, *rng.permutation(body), f"No. {number}"])
