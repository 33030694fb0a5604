"""The built-in corpus: real English that every Python has.

It is the language reference of `pydoc` and the docstrings of installed code. Nothing is imported: the sources are
parsed. The text depends on the installed packages.
"""

import ast
import os
import re
import sysconfig
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from pydoc_data.topics import topics

from bertjax.corpus.sentences import split_sentences

_SKIPPED = re.compile(r"_?tests?|testing|idlelib|lib2to3|site-packages|_?vendor|vendored|third_party|bertjax")
_TRIPLE = re.compile(rb'"""(.*?)"""', re.DOTALL)
_PACKAGE_BYTES = 3_000_000  # of source parsed per package: one large package must not be most of the corpus
_DOCUMENT_CHARACTERS = 200
_PARAGRAPH_CHARACTERS = 40


def documents(counts: Counter) -> Iterator[list[str]]:
    """The documents, each a list of at least one sentence, in a fixed order; `counts` receives "unparsable_files".

    A paragraph is used once, because packages repeat their docstrings and repeated text would leak into the held-out
    documents.
    """
    seen: set[str] = set()
    for _, text in sorted(topics.items()):
        yield from _prose_document([text], seen)
    paths = sysconfig.get_paths()
    for root in dict.fromkeys((paths["stdlib"], paths["purelib"], paths["platlib"])):
        spent: Counter = Counter()
        for package, path in _modules(Path(root)):
            if spent[package] > _PACKAGE_BYTES:
                continue
            try:
                source = path.read_bytes()
                quoted = sum(map(len, _TRIPLE.findall(source)))
                # Parsing is what takes the time, so only files that are a quarter documentation are parsed.
                if quoted < 1000 or quoted < len(source) / 4:
                    continue
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of doubtful escapes in other people's code
                    docstrings = list(_docstrings(ast.parse(source)))
            except (OSError, SyntaxError, ValueError, RecursionError):
                counts["unparsable_files"] += 1
                continue
            spent[package] += len(source)
            yield from _prose_document(docstrings, seen)


def _modules(root: Path) -> Iterator[tuple[str, Path]]:
    """(top-level name, path) of each module under `root`, sorted."""
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not _SKIPPED.fullmatch(name))
        for name in sorted(files):
            path = Path(folder, name)
            if name.endswith(".py"):
                yield path.relative_to(root).parts[0], path


def _docstrings(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield ast.get_docstring(node) or ""
    for child in getattr(node, "body", ()):
        yield from _docstrings(child)


def _prose_document(texts: list[str], seen: set[str]) -> Iterator[list[str]]:
    paragraphs = [paragraph for text in texts for paragraph in _prose(text) if paragraph not in seen]
    paragraphs = list(dict.fromkeys(paragraphs))
    seen.update(paragraphs)
    if sum(map(len, paragraphs)) >= _DOCUMENT_CHARACTERS:
        yield [sentence for paragraph in paragraphs for sentence in split_sentences(paragraph)]


_BULLET = re.compile(r"\n\s*(?:[-*+•]|\d+[.)])\s+")
_CODE_LINE = re.compile(r"\s*(?:>>>|\.\.\.|\.\. |:\w|@\w|[-=~^+*#|`]{3,}|[|+#$%])")
_PARAMETERS = re.compile(
    r"\s*(?:Arg|Argument|Parameter|Param|Attribute|Raise|Return|Yield|Keyword [Aa]rgument)s?\b.*:\n"
)
_MARKUP: list[tuple[re.Pattern, str | Callable]] = [
    (re.compile(r":[\w:+-]+:`~(?:[\w.]*\.)?([^`<]+)`"), r"\1"),  # :class:`~a.b.C` -> C
    (re.compile(r"(?::[\w:+-]+:)?`+([^`<]+?)\s*(?:<[^`>]*>)?`+_{0,2}"), r"\1"),  # :func:`f`, ``x``, `text <url>`_
    (re.compile(r"\*{1,2}(\S[^*]*?)\*{1,2}"), r"\1"),
    (re.compile(r"\s*\[[\w#]+\]_"), ""),  # footnotes and citations
]
_WORD = re.compile(r"""["'(“‘]*[A-Za-z]+(?:['’-][A-Za-z]+)*[.,;:!?)"'”’]*""")


def _prose(text: str) -> Iterator[str]:
    """The paragraphs of a docstring that read as English, on one line each and without reST markup."""
    literal = False  # the block before ended with "::", so that indented ones are code
    for block in re.split(r"\n\s*\n", text):
        indented = block.startswith((" ", "\t"))
        if (literal and indented) or _PARAMETERS.match(block) or any(map(_CODE_LINE.match, block.split("\n"))):
            continue
        literal = block.rstrip().endswith("::")
        for item in _BULLET.split("\n" + block):
            paragraph = " ".join(item.split())
            for pattern, replacement in _MARKUP:
                paragraph = pattern.sub(replacement, paragraph)
            paragraph = paragraph.replace("::", ":")
            words = paragraph.split(" ")
            if (
                len(paragraph) >= _PARAGRAPH_CHARACTERS
                and paragraph[0].isupper()
                and paragraph[-1] in '.!?:)"'
                and sum(_WORD.fullmatch(word) is not None for word in words) >= 0.85 * len(words)
            ):
                yield paragraph
