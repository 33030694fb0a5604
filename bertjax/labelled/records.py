"""What one labelled example is, whatever its file."""

from dataclasses import dataclass

TRAIN, DEV, TEST = SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Answer:
    """An answer of a question: `text` is what the context has from character `start` on."""

    start: int
    text: str


@dataclass(frozen=True)
class Record:
    """One example, of any kind of task (`task.kind`). What a kind does not have stays as it is here."""

    place: str
    """Where it is from, as "FILE: line 7", for messages."""
    texts: tuple[str, ...]
    """classify, regress: the text, or the two of a pair. tag: the words of a sentence. span: the question, the context.
    choice: the text and its endings."""
    label: str | None = None
    """classify: its name. regress: the number as it is written. choice: which ending is right, from "0"."""
    tags: tuple[str, ...] | None = None
    """tag: one for each word, as BIO."""
    answers: tuple[Answer, ...] | None = None
    """span: those that are right; () = the context does not answer it."""
    name: str = ""
    """Its id in the file, where it has one (SQuAD)."""

    @property
    def labelled(self) -> bool:
        """Whether it has what is to be learnt."""
        return self.label is not None or self.tags is not None or self.answers is not None
