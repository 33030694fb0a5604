"""The built-in corpus is prose, each paragraph of it once."""

import itertools
from collections import Counter

from bertjax.corpus import builtin


def test_built_in_corpus_is_deterministic_prose():
    first, second = (list(itertools.islice(builtin.documents(Counter()), 110)) for _ in range(2))
    assert first == second
    assert len(first) == 110
    sentences = [sentence for document in first for sentence in document]
    assert sum(map(len, sentences)) > 200_000
    assert all(sum(map(len, document)) >= 150 for document in first)
    repeated = Counter(sentence for sentence in sentences if len(sentence) > 80)
    assert sum(count - 1 for count in repeated.values()) < 0.01 * len(sentences)


MODULE = '''
"""Prose in a docstring is kept, with :class:`~a.b.Markup` and ``quotes`` made plain. It has sentences, and is
joined over lines.

>>> code(1, 2) is dropped, even if this line is long enough to be a paragraph of prose.

A block that ends like this announces code, and the block is dropped::

    An indented block after two colons is code, however much it looks like prose.

Parameters
----------
name : str
    The parameters of a function are dropped, underline and description and all.

Calls(such, as=f(x), y[0]) { are } <not> words = 1 + 2 == 3 and so are dropped too.

Too short.

- Points of a list become paragraphs of their own, if they are long enough to be.
"""
x = "unused"
def f():
    """Functions and methods are read as well, wherever they stand in the module.

    Prose in a docstring is kept, with `Markup` and quotes made plain. It has sentences, and is joined over lines.
    """
'''
PROSE = [
    "Prose in a docstring is kept, with Markup and quotes made plain.",
    "It has sentences, and is joined over lines.",
    "A block that ends like this announces code, and the block is dropped:",
    "Points of a list become paragraphs of their own, if they are long enough to be.",
    "Functions and methods are read as well, wherever they stand in the module.",
]


def test_built_in_corpus_keeps_prose_once(tmp_path, monkeypatch):
    module = MODULE.replace("Too short.", "Too short.\n\n" * 20)  # files with little documentation are not parsed
    for name in ("a.py", "copy.py", "tests/b.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(module)
    (tmp_path / "python2.py").write_text(module + "print 1\n")
    monkeypatch.setattr(builtin, "topics", {})
    monkeypatch.setattr(
        builtin.sysconfig, "get_paths", lambda: dict.fromkeys(["stdlib", "purelib", "platlib"], tmp_path)
    )
    counts = Counter()
    assert list(builtin.documents(counts)) == [PROSE]
    assert counts == {"unparsable_files": 1}
