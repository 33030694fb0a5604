"""Where text comes from: files in one of five forms, or the prose that ships with Python, as documents of sentences."""

import ast
import glob
import html
import itertools
import json
import os
import re
import sysconfig
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from pydoc_data.topics import topics

from bertjax.config import DataConfig
from bertjax.errors import DataError

Lines = Iterator[tuple[int, str]]
"""Numbered lines of a file, from 1, without white space at their ends."""


def documents(data: DataConfig, counts: Counter | None = None) -> Iterator[list[str]]:
    """The documents of `data.source`, each a list of at least one sentence, in an order fixed by the sorted paths.

    `counts` receives "documents", "sentences", "empty_documents" and, for the built-in corpus, "unparsable_files".
    Raises DataError at once for a path that names nothing, and from the iterator for a file that cannot be read or is
    malformed and for a corpus without any text.
    """
    counts = Counter() if counts is None else counts
    if data.source.strip() == "builtin":
        found = _builtin(counts)
    else:
        paths = _paths(data.source)
        found = itertools.chain.from_iterable(_file_documents(path, data) for path in paths)
    return _counted(found, counts, data.source)


def _counted(found: Iterator[list[str]], counts: Counter, source: str) -> Iterator[list[str]]:
    for sentences in found:
        if sentences:
            counts["documents"] += 1
            counts["sentences"] += len(sentences)
            yield sentences
        else:
            counts["empty_documents"] += 1
    if not counts["documents"]:
        raise DataError(f"data.source = {source!r}: holds no document with text; name files that do")


def _paths(source: str) -> list[Path]:
    found: set[Path] = set()
    for pattern in filter(None, (part.strip() for part in source.split(","))):
        pattern = os.path.expanduser(pattern)
        # What exists is taken literally, because a file name may hold the brackets of a pattern.
        matches = [pattern] if os.path.exists(pattern) else glob.glob(pattern, recursive=True)
        files = [Path(match) for match in matches if not os.path.isdir(match)]
        if not files:
            fix = "is a directory; name its files, as in DIR/*.txt" if matches else "no such file; check the path"
            raise DataError(f"data.source = {pattern!r}: {fix}")
        found.update(files)
    return sorted(found)


# The forms of a file -----------------------------------------------------------------------------------------------


def _file_documents(path: Path, data: DataConfig) -> Iterator[list[str]]:
    form = data.format
    if form == "auto":
        first = next((text for _, text in _lines(path) if text), "")
        wiki = "wikiextractor" if first.startswith("<doc ") else "paragraphs"
        form = "jsonl" if path.suffix == ".jsonl" else wiki
    for paragraphs in _jsonl(path, data.text_field) if form == "jsonl" else _FORMS[form](path):
        yield paragraphs if form == "sentences" else _sentences(paragraphs)


def _lines(path: Path) -> Lines:
    """Decode line by line, so that a file of any size takes the memory of its longest line."""
    offset = 0
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                text = line.decode()
                yield number, (text.removeprefix("\ufeff") if number == 1 else text).strip()
                offset += len(line)
    except UnicodeDecodeError as error:
        fix = f"convert it, for example with `iconv -f latin1 -t utf-8 {path.name}`"
        raise DataError(f"{path}: not UTF-8 at byte {offset + error.start}; {fix}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None


def _whole(path: Path) -> Iterator[list[str]]:
    yield [text for _, text in _lines(path) if text]


def _blank_separated(path: Path) -> Iterator[list[str]]:
    for filled, group in itertools.groupby((text for _, text in _lines(path)), key=bool):
        if filled:
            yield list(group)


def _wiki(path: Path) -> Iterator[list[str]]:
    """`<doc id= url= title=>`, the title again, paragraphs and headings one a line, `</doc>`."""
    body: list[str] | None = None
    for number, text in _lines(path):
        if text.startswith("<doc "):
            if body is not None:
                raise DataError(
                    f"{path}:{number}: <doc> inside a document; its </doc> is missing, extract the file again"
                )
            match = re.search(r'title="(.*)"', text)
            title = match[1] if match else ""
            body = []
        elif body is None:
            if text:
                raise DataError(
                    f"{path}:{number}: text outside <doc> … </doc>; set data.format to the form of this file"
                )
        elif text == "</doc>":
            yield body[1:] if body and body[0] in (title, html.unescape(title)) else body
            body = None
        elif text:
            body.append(text)
    if body is not None:
        raise DataError(f"{path}: ends inside a document; the file is cut short, extract it again")


def _jsonl(path: Path, field: str) -> Iterator[list[str]]:
    for number, line in _lines(path):
        if not line:
            continue
        try:
            text = json.loads(line)[field]
            text.encode()  # a lone surrogate such as "\ud800" is legal JSON but no text: tokenizers fail on it
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            problem = f"{type(error).__name__}: {error}"
            raise DataError(
                f"{path}:{number}: not a JSON object with text under {field!r} ({problem});"
                " mend the line or set data.text_field"
            ) from None
        yield [paragraph for part in text.split("\n") if (paragraph := part.strip())]


_FORMS = {"file": _whole, "paragraphs": _blank_separated, "sentences": _blank_separated, "wikiextractor": _wiki}


# Sentences ---------------------------------------------------------------------------------------------------------

_END = re.compile(r"""(?<![.!?])[.!?]++["'”’»)\]]*+\s++""")  # possessive: linear on any run of dots
_OPENING = "\"'“‘«(["
_ABBREVIATIONS = re.compile(
    r"mrs?|ms|mx|dr|prof|rev|hon|gen|col|maj|capt|lt|sgt|gov|sen|rep|pres|st|mt|ft|sr|jr|messrs|mme|mlle|vs|viz|cf|al"
    r"|etc|eg|ie|approx|ca|inc|ltd|co|corp|dept|univ|assn|bros|ave|blvd|rd"
)
_BEFORE_NUMBERS = re.compile(r"nos?|vols?|figs?|eqs?|pp?|ch|sec|art|op|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec")
_INITIALS = re.compile(r"[A-HJ-Z]|(?:[^\W\d_]\.)+[^\W\d_]")  # J  U.S  e.g  but not the pronoun I


def split_sentences(paragraph: str) -> list[str]:
    """Split after . ! ? and closing quotes or brackets, where white space and a likely start of a sentence follow.

    A start is an upper-case letter, a digit, an opening quote or bracket. A single full stop does not end a sentence
    after an initial ("J.", "U.S.", "e.g."), a common abbreviation ("Dr.") or, before a digit, one such as "No.".
    Made for English and its like; text without such ends stays one sentence.
    """
    sentences, start = [], 0
    for match in _END.finditer(paragraph):
        end = match.end()
        if end == len(paragraph):
            break
        following = paragraph[end]
        if (following.isupper() or following.isdigit() or following in _OPENING) and not _abbreviated(
            paragraph[max(start, match.start() - 20) : match.start()], match[0].rstrip(), following
        ):
            sentences.append(paragraph[start:end].strip())
            start = end
    rest = paragraph[start:].strip()
    return [*sentences, rest] if rest else sentences


def _abbreviated(before: str, stop: str, following: str) -> bool:
    words = before.split()
    if stop != "." or not words or before[-1].isspace():
        return False
    word = words[-1].lstrip(_OPENING + "-")
    lower = word.lower()
    if _BEFORE_NUMBERS.fullmatch(lower):
        return following.isdigit()
    return bool(_ABBREVIATIONS.fullmatch(lower) or _INITIALS.fullmatch(word))


def _sentences(paragraphs: list[str]) -> list[str]:
    return [sentence for paragraph in paragraphs for sentence in split_sentences(paragraph)]


# The built-in corpus -----------------------------------------------------------------------------------------------

_SKIPPED = re.compile(r"_?tests?|testing|idlelib|lib2to3|site-packages|_?vendor|vendored|third_party|bertjax")
_TRIPLE = re.compile(rb'"""(.*?)"""', re.DOTALL)
_PACKAGE_BYTES = 3_000_000  # of source parsed per package: one large package must not be most of the corpus
_DOCUMENT_CHARACTERS = 200
_PARAGRAPH_CHARACTERS = 40


def _builtin(counts: Counter) -> Iterator[list[str]]:
    """Real English that every Python has: the language reference of `pydoc` and the docstrings of installed code.

    Nothing is imported: the sources are parsed. A paragraph is used once, because packages repeat their docstrings
    and repeated text would leak into the held-out documents. The text depends on the installed packages.
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
        yield _sentences(paragraphs)


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
