"""Sentences of a paragraph, by rules for English and its like, and by the stops that other scripts have."""

import itertools
import re

_END = re.compile(r"""[.!?](?<![.!?].)[.!?]*+["'”’»)\]]*+\s++(?=[A-Z0-9"'(\[]|[^\x00-\x7f])""")
"""Stops, closing marks, white space and what may start a sentence: one match for a run of stops, in linear time.

It begins with a plain set of characters, because the search then skips to one of these several times faster.
"""
_OTHER_STOPS = (
    "。！？｡﹖﹗"  # Chinese and Japanese
    "؟۔"  # Arabic, Persian, Urdu
    "।॥"  # Hindi, Bengali and other scripts of India
    "᱾᱿꯫"  # Santali, Manipuri
    "։"  # Armenian
    "።፧፨"  # Amharic, Tigrinya
    "။។៕"  # Burmese, Khmer
    "᠃᠉"  # Mongolian
    "܀܁܂"  # Syriac
)
_OTHER_END = re.compile(rf"""(?:[{_OTHER_STOPS}]|፡፡)[{_OTHER_STOPS}.!?]*+(?![」』）】〉》”’»]|["')\]]+(?:\s|\Z))""")
"""Stops that never stand within a word, so that no white space need follow; what is quoted goes on with its sentence
(「はい。」と言った。).
"""
_OPENING = "\"'“‘«(["
_ABBREVIATIONS = frozenset(
    re.findall(
        r"\w+",
        "mr mrs ms mx dr prof rev hon gen col maj capt lt sgt gov sen rep pres st mt ft sr jr messrs mme mlle vs viz cf"
        " al etc eg ie approx ca inc ltd co corp dept univ assn bros ave blvd rd",
    )
) | {"डॉ", "प्रो"}
_BEFORE_NUMBERS = frozenset(
    re.findall(
        r"\w+",
        "no nos vol vols fig figs eq eqs p pp ch sec art op jan feb mar apr jun jul aug sep sept oct nov dec",
    )
)
_INITIALS = re.compile(r"[A-HJ-Z\u0590-\u06ff]|(?:[^\W\d_]\.)+[^\W\d_]")
"""J  U.S  e.g  د (Dr. in Arabic), but not the pronoun I."""


def split_sentences(paragraph: str) -> list[str]:
    """Split after . ! ? and closing quotes or brackets, where white space and a likely start of a sentence follow.

    A start is an upper-case letter, a digit, an opening quote or bracket. A single full stop does not end a sentence
    after an initial ("J.", "U.S.", "e.g."), a common abbreviation ("Dr.") or, before a digit, one such as "No.".
    In a script without case every letter may start one. Made for English and its like; text without such ends stays one
    sentence. The stops of other scripts, as 。 ؟ । always end one, but not before a closing mark. No sentence is empty
    or has white space at its ends.
    """
    ends = [] if paragraph.isascii() else [match.end() for match in _OTHER_END.finditer(paragraph)]
    if not ends:
        return _split(paragraph)
    stretches = itertools.pairwise([0, *ends, len(paragraph)])
    return [sentence for start, end in stretches for sentence in _split(paragraph[start:end])]


def _split(paragraph: str) -> list[str]:
    sentences, start = [], 0
    for match in _END.finditer(paragraph):
        stop, end = match.span()
        following = paragraph[end]
        if following > "\x7f" and not _may_start(following):
            continue
        # A single full stop, with no closing mark, may belong to the word before it.
        single = paragraph[stop] == "." and paragraph[stop + 1].isspace()
        if single and _abbreviated(paragraph[max(start, stop - 20) : stop], following):
            continue
        sentences.append(paragraph[start:end].strip())
        start = end
    rest = paragraph[start:].strip()
    return [*sentences, rest] if rest else sentences


def _may_start(character: str) -> bool:
    """Whether a sentence may begin with it; Georgian, whose capitals are for headings, counts as without case."""
    if character.isalpha():
        return not character.islower() or "\u10d0" <= character <= "\u10ff"
    return character.isdigit() or character in _OPENING


def _abbreviated(before: str, following: str) -> bool:
    words = before.rsplit(maxsplit=1)
    if not words or before[-1].isspace():
        return False
    word = words[-1].lstrip(_OPENING + "-")
    lower = word.lower()
    if lower in _BEFORE_NUMBERS:
        return following.isdigit()
    return lower in _ABBREVIATIONS or ((len(word) == 1 or "." in word) and bool(_INITIALS.fullmatch(word)))
