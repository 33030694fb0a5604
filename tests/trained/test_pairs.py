"""`bertjax.trained.pairs`: each form gives the pairs it means, and what is wrong is named by file and line."""

import fnmatch
import json
import tomllib
from collections import Counter
from pathlib import Path

import directories
import pytest

import bertjax
from bertjax.errors import DataError
from bertjax.trained.pairs import Paradigm, read

PACKAGE = Path(bertjax.__file__).parent


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def blimp(good, bad, uid="islands", field="syntax/semantics"):
    return json.dumps({"sentence_good": good, "sentence_bad": bad, "field": field, "UID": uid, "pairID": "1"})


def test_each_form_gives_its_pairs(tmp_path):
    one = write(tmp_path / "x.jsonl", blimp("Good.", "Bad."), blimp("Fine.", "Poor.", "other", "syntax"))
    assert read([one]) == [
        Paradigm("islands", "syntax_semantics", (("Good.", "Bad."),)),
        Paradigm("other", "syntax", (("Fine.", "Poor."),)),
    ]
    zorro = write(tmp_path / "filler-gap-wh_question.txt", "bad one .", "good one .", "bad two .", "good two .")
    pairs = (("good one .", "bad one ."), ("good two .", "bad two ."))
    assert read([zorro]) == [Paradigm("filler-gap-wh_question", "filler-gap", pairs)]
    bare = write(tmp_path / "mine.tsv", "good\tbad", "a b\tb a", "c d\td c")
    assert read([bare]) == [Paradigm("mine", "", (("a b", "b a"), ("c d", "d c")))]
    headed = write(tmp_path / "named.tsv", "Good\tBad\tParadigm\tField", "a\tb\tp\tf", "c\td\tq\tf", "e\tg\tp\tf")
    assert read([str(headed)]) == [Paradigm("p", "f", (("a", "b"), ("e", "g"))), Paradigm("q", "f", (("c", "d"),))]
    unheaded = write(tmp_path / "without.tsv", "a\tb\tp", "c\td\tp")
    assert read([unheaded]) == [Paradigm("p", "", (("a", "b"), ("c", "d")))]


def test_a_directory_gives_its_files_and_a_paradigm_may_go_on_in_another(tmp_path):
    write(tmp_path / "README.md", "no pairs")
    write(tmp_path / "a.tsv", "a\tb\tp", "c\td\tq")
    write(tmp_path / "b.tsv", "e\tf\tp")
    expected = [Paradigm("p", "", (("a", "b"), ("e", "f"))), Paradigm("q", "", (("c", "d"),))]
    assert read([tmp_path]) == expected == read([tmp_path / "a.tsv", tmp_path / "b.tsv"])


def test_a_limit_takes_pairs_evenly_spread(tmp_path):
    path = write(tmp_path / "x.tsv", *(f"good {i}\tbad {i}\t{'long' if i < 100 else 'short'}" for i in range(103)))
    long, short = read([path], limit=5)
    assert [good for good, _ in long.pairs] == [f"good {i}" for i in (0, 20, 40, 60, 80)]
    assert len(short.pairs) == 3
    assert [len(one.pairs) for one in read([path])] == [100, 3]


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("x.jsonl", f"{blimp('a', 'b')}\n{{", "x.jsonl:2: is not a JSON object"),
        ("x.jsonl", "[1]", "x.jsonl:1: is not a JSON object"),
        ("x.jsonl", '{"sentence_good": "a"}', "x.jsonl:1: the bad sentence is missing"),
        ("x.jsonl", '{"sentence_good": 1, "sentence_bad": "a"}', "x.jsonl:1: .* must be texts"),
        ("x.jsonl", blimp("a", "\ud800"), "x.jsonl:1: the bad sentence has half a character"),
        (
            "x.jsonl",
            f"{blimp('a', 'b')}\n{blimp('a', 'b', field='other')}",
            "x.jsonl:2: paradigm 'islands' is of field",
        ),
        ("x.txt", "a\nb\nc\n", "x.txt:3: has no line after it"),
        ("x.txt", "a\nb\n\nd\n", "x.txt:3: the bad sentence is missing"),
        ("x.tsv", "a b\n", "x.tsv:1: has 1 columns"),
        ("x.tsv", "a\tb\tc\td\te\n", "x.tsv:1: has 5 columns"),
        ("x.tsv", "good\tbad\na\t \n", "x.tsv:2: the bad sentence is missing"),
        ("x.tsv", "good\tbad\n", "x.tsv: has no pair"),
        ("x.tsv", "", "x.tsv: has no pair"),
        ("x.csv", "a,b\n", "x.csv: must end in .jsonl, .txt, .tsv"),
        ("folder/x.csv", "a,b\n", "folder: holds no file of minimal pairs"),
    ],
)
def test_what_is_malformed_is_one_line(tmp_path, name, text, named):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    with pytest.raises(DataError, match=named) as caught:
        read([tmp_path / name.split("/")[0]])
    assert len(str(caught.value).splitlines()) == 1


def test_what_cannot_be_found_or_read_is_one_line(tmp_path):
    (tmp_path / "x.tsv").write_bytes(b"a\tb\n\xff")
    (tmp_path / "y.tsv").mkdir()
    for path, named in (
        (tmp_path / "none", "not found; name a file"),
        ("", "not found"),
        (tmp_path / "x.tsv", "is not UTF-8 text at byte 4"),
        (tmp_path / "y.tsv", "holds no file"),
    ):
        with pytest.raises(DataError, match=named) as caught:
            read([path])
        assert len(str(caught.value).splitlines()) == 1


def test_published_sets_are_read_whole():
    pairs = read([directories.shared("minimal_pairs", "blimp")])
    assert len(pairs) == 67 and {len(one.pairs) for one in pairs} == {500}
    assert {one.field for one in pairs} == {"morphology", "syntax", "semantics", "syntax_semantics"}
    good = "What had Theresa walked through while talking about that high school?"
    assert pairs[0].name == "adjunct_island" and pairs[0].pairs[0][0] == good
    pairs = read([directories.shared("minimal_pairs", "zorro")])
    assert len(pairs) == 23 and {len(one.pairs) for one in pairs} == {2_000}
    assert {"agreement_subject_verb", "island-effects", "irregular"} < {one.field for one in pairs}


# The pairs that come with the package --------------------------------------------------------------------------------


def changed(good, bad):
    """The words of one side that the other has not, lower case."""
    good, bad = (Counter(text.lower().replace(",", "").rstrip(".").split()) for text in (good, bad))
    return tuple((good - bad).elements()), tuple((bad - good).elements())


def test_own_pairs_cannot_be_told_by_how_frequent_their_words_are():
    """Each differs in one word, and for each pair there is another in which the same two words change sides: whoever
    prefers one word, wherever it stands, is right in one of them.
    """
    paradigms = read(["builtin"])
    assert len(paradigms) == 9 and sum(len(one.pairs) for one in paradigms) == 180 and all(p.field for p in paradigms)
    for paradigm in paradigms:
        sides = Counter(changed(*pair) for pair in paradigm.pairs)
        assert len(set(paradigm.pairs)) == len(paradigm.pairs)
        for (good, bad), count in sides.items():
            assert len(good) == len(bad) == 1
            assert sides[bad, good] == count, (paradigm.name, good, bad)


def test_what_is_no_python_in_the_package_is_in_its_wheels():
    settings = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    files = [p for p in PACKAGE.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")]
    assert any(path.suffix == ".tsv" for path in files)
    for path in files:
        room = ".".join(path.parent.relative_to(PACKAGE.parent).parts)
        assert any(fnmatch.fnmatch(path.name, pattern) for pattern in settings.get(room, [])), path
