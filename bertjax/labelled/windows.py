"""Sentences and contexts that are longer than a row, as several examples.

Shape letters: n tokens of an example, T tokens of a context, C characters of it.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from bertjax.config.task_fields import TaskConfig
from bertjax.data.tokenizer import Tokenizer
from bertjax.labelled.example import Example, Frame
from bertjax.labelled.records import Answer, Record

# Words with tags ----------------------------------------------------------------------------------------------------


def parts_of_sentences(
    block: Sequence[Record], first: int, index: dict[str, int], tokenizer: Tokenizer, frame: Frame, seq_len: int
) -> Iterator[Example]:
    """Each sentence in as many examples as it needs, cut between words; a word that is longer than a row is cut itself.

    Every word has a piece at which it is told: one that the tokenizer knows nothing of, as of a zero-width space, is
    [UNK].
    """
    # In running text a word comes behind a space, and byte-level pieces know it by that.
    before = " " if any(piece.startswith(" ") for piece in tokenizer.spellings) else ""
    ids_n, lengths = tokenizer.encode_batch([before + word for record in block for word in record.texts])
    starts = np.cumsum(lengths) - lengths
    word = 0
    for number, record in enumerate(block, first):
        tags = [-1] * len(record.texts) if record.tags is None else [index[tag] for tag in record.tags]
        ends = zip(starts[word : word + len(tags)], lengths[word : word + len(tags)], strict=True)
        pieces = [ids_n[start : start + min(size, seq_len - 2)] if size else frame.unk for start, size in ends]
        word += len(tags)
        done = 0
        while done < len(tags):
            sizes = np.cumsum([len(piece) for piece in pieces[done : done + seq_len - 2]])
            end = done + int(np.searchsorted(sizes, seq_len - 2, side="right"))
            yield _sentence(number, pieces, tags, done, end, frame)
            done = end


def _sentence(number: int, pieces: list[np.ndarray], tags: list[int], start: int, end: int, frame: Frame) -> Example:
    """The example of the words from `start` to before `end`."""
    tokens, token_types = frame.one(np.concatenate(pieces[start:end]))
    sizes = [len(piece) for piece in pieces[start:end]]
    at = 1 + np.cumsum(sizes) - sizes
    labels_n, words_n = np.full(len(tokens), -1, np.int32), np.full(len(tokens), -1, np.int32)
    labels_n[at], words_n[at] = tags[start:end], np.arange(start, end)
    return Example(tokens, token_types, number, labels=labels_n, words=words_n)


# Questions on contexts ----------------------------------------------------------------------------------------------


def parts_of_contexts(
    block: Sequence[Record], first: int, task: TaskConfig, tokenizer: Tokenizer, frame: Frame, seq_len: int
) -> Iterator[Example]:
    """Each question with one part of its context after another, `task.stride` tokens from each to the next."""
    ids_n, lengths = tokenizer.encode_batch([record.texts[0] for record in block])
    questions = np.split(ids_n, np.cumsum(lengths)[:-1])
    contexts = list({record.texts[1]: None for record in block})  # many questions are on the same
    ids_n, lengths, places_n2 = tokenizer.encode_places(contexts)
    cuts = np.cumsum(lengths)[:-1]
    split = zip(contexts, np.split(ids_n, cuts), np.split(places_n2, cuts), strict=True)
    tokens_of = {text: (ids_T, offsets(text, places_T2)) for text, ids_T, places_T2 in split}
    for number, (record, question) in enumerate(zip(block, questions, strict=True), first):
        ids_T, offsets_T2 = tokens_of[record.texts[1]]
        span = None if record.answers is None else _tokens_of(record.answers, offsets_T2)
        question = question[: task.max_question]
        size = seq_len - len(question) - 3
        starts = _starts(len(ids_T), size, task.stride)
        fullest_T = _fullest(len(ids_T), size, starts)
        for part, start in enumerate(starts):
            end = min(start + size, len(ids_T))
            tokens, token_types = frame.two(question, ids_T[start:end])
            at = len(question) + 2
            offsets_n2 = np.full((len(tokens), 2), -1, np.int32)
            offsets_n2[at:-1] = offsets_T2[start:end]
            max_context_n = np.zeros(len(tokens), bool)
            max_context_n[at:-1] = fullest_T[start:end] == part
            within = span and span[0] >= start and span[1] < end
            shifted = (span[0] - start + at, span[1] - start + at) if span and within else span and (0, 0)
            yield Example(tokens, token_types, number, span=shifted, offsets=offsets_n2, max_context=max_context_n)


def _starts(total: int, size: int, stride: int) -> list[int]:
    """Where parts of `size` tokens begin, the last of which holds the last of `total` tokens."""
    step = min(size, stride)
    return list(range(0, max(1, total - size + step), step))


def _fullest(total: int, size: int, starts: list[int]) -> np.ndarray:
    """int [T] which part has most context of each token, counted where it has less, before it or after it; of equal
    ones the first, as in the script of SQuAD for BERT (run_squad.py, `_check_is_max_context`).
    """
    token_T = np.arange(total)
    best_T, part_T = np.full(total, -1), np.zeros(total, np.int64)
    for part, start in enumerate(starts):
        end = min(start + size, total)
        within = slice(start, end)
        score = np.minimum(token_T[within] - start, end - 1 - token_T[within])
        better = score > best_T[within]
        best_T[within][better], part_T[within][better] = score[better], part
    return part_T


def _tokens_of(answers: Sequence[Answer], offsets_T2: np.ndarray) -> tuple[int, int]:
    """The first and the last token of the first answer; (-1, -1) if there is none."""
    if not answers:
        return -1, -1
    start, end = answers[0].start, answers[0].start + len(answers[0].text)
    touched = np.flatnonzero((offsets_T2[:, 1] > start) & (offsets_T2[:, 0] < end))
    return (int(touched[0]), int(touched[-1])) if len(touched) else (-1, -1)


def offsets(text: str, places_T2: np.ndarray) -> np.ndarray:
    """int32 [T, 2] the characters of each token: without white space around them, and with those that a tokenizer
    drops, accents above all, which belong to the token before them, or to that behind them if they begin a word.
    """
    if not len(places_T2):
        return places_T2
    space_C = np.array([character.isspace() for character in text] + [True])
    place_C = np.arange(len(text) + 1)
    next_space_C = np.minimum.accumulate(np.where(space_C, place_C, len(text))[::-1])[::-1]
    next_letter_C = np.minimum.accumulate(np.where(space_C, len(text), place_C)[::-1])[::-1]
    word_start_C = np.append(0, np.maximum.accumulate(np.where(space_C, place_C + 1, 0))[:-1])
    letter_end_C = np.append(0, np.maximum.accumulate(np.where(space_C, 0, place_C + 1))[:-1])
    starts_T, ends_T = places_T2.T.astype(np.int64)
    starts_T = np.minimum(next_letter_C[starts_T], ends_T)
    ends_T = np.maximum(letter_end_C[ends_T], starts_T)
    ends_T = np.maximum(ends_T, np.minimum(next_space_C[ends_T], np.append(starts_T[1:], len(text))))
    starts_T = np.minimum(starts_T, np.maximum(word_start_C[starts_T], np.append(0, ends_T[:-1])))
    return np.stack((starts_T, ends_T), axis=1).astype(np.int32)
