"""The sections `task` and `sweep` of the schema: what is learnt from labels, and which runs are compared for it."""

from dataclasses import dataclass

from bertjax.config.limits import value


@dataclass(frozen=True)
class TaskConfig:
    """The labelled examples of fine-tuning: where they are, how they are read, and what is made of them."""

    name: str = value("", "how tables call it; '' = its kind", may_change=True)
    kind: str = value(
        "",
        "classify (a label for a text or a pair), regress (a number), tag (a label for each word), span (an answer in a"
        " text), choice (the right one of several endings); '' = pretraining",
        choices=("", "classify", "regress", "tag", "span", "choice"),
    )
    train: tuple[str, ...] = value((), "files, or tfds:NAME[SPLIT], with labels to learn from", path=True)
    dev: tuple[str, ...] = value((), "the same, to measure while training; () = a share of train", path=True)
    test: tuple[str, ...] = value((), "the same, measured once, at the end; () = none", path=True, may_change=True)
    dev_share: float = value(0.1, "dev = (): the share of train that is kept for it", least=0, below=1)
    format: str = value(
        "auto",
        "of these files: table (.tsv, .csv), jsonl, conll (a word and its tag a line), squad (JSON); auto = by name and"
        " beginning",
        choices=("auto", "table", "jsonl", "conll", "squad"),
    )
    header: str = value(
        "auto",
        "table: whether the first line names the columns; auto = if the columns asked for are in it",
        choices=("auto", "yes", "no"),
    )
    delimiter: str = value(
        "auto",
        "table: what is between columns: tab, comma, semicolon, space (the first one of a line); auto = by name",
        choices=("auto", "tab", "comma", "semicolon", "space"),
    )
    quotes: str = value(
        "auto",
        "table: whether a cell in double quotes is one cell; auto = yes for .csv, no for .tsv, as GLUE's files",
        choices=("auto", "yes", "no"),
    )
    columns: tuple[str, ...] = value((), "table: names of the columns of files without a header, from the first on")
    text: str = value("text", "column of the text, by its name or its number from 1; conll: of the words")
    pair: str = value("", "column of the second text of a pair; '' = none")
    label: str = value("label", "column of the label or number; conll: of the tags; choice: of the right one")
    endings: tuple[str, ...] = value((), "choice: columns of the endings")
    separator: str = value("", "the label is what stands before the first of these in its column (TREC: ':'); '' = all")
    labels: tuple[str, ...] = value((), "names of the labels in their order; () = those found in train, sorted")
    metric: str = value(
        "auto",
        "by which runs and weights are chosen; auto = accuracy, pearson, f1 (tag, span), accuracy (choice)",
        choices=("auto", "accuracy", "f1", "macro_f1", "matthews", "pearson", "spearman", "exact_match"),
    )
    stride: int = value(128, "span: tokens from one window of a long text to the next", least=1)
    max_question: int = value(64, "span: tokens of a question, which is cut there", least=1)
    max_answer: int = value(30, "span: most tokens of an answer", least=1)
    best_answers: int = value(20, "span: starts and ends that are combined", least=1, below=1_000)
    unanswerable: str = value(
        "auto",
        "span: whether a question may have no answer; auto = if one of train has none, which a run remembers",
        choices=("auto", "yes", "no"),
    )
    null_threshold: float = value(
        0.0, "span: no answer where its score is more than this above that of the best one", least=-1e6
    )
    epochs: float = value(
        3.0,
        "passes over train, which set run.steps, warm-up, evaluations and saves; 0.0 = as those fields say",
        least=0,
    )
    warmup: float = value(0.1, "epochs: share of the steps that warm up", least=0, below=1)
    evaluations: int = value(1, "epochs: evaluations on dev in each", least=1, below=1_000)
    select: str = value(
        "best",
        "the model of a run: its weights at the best evaluation on dev, or at the last",
        choices=("best", "last"),
    )
    patience: int = value(
        0, "ends a run after so many evaluations without a better one; 0 = never", least=0, may_change=True
    )


@dataclass(frozen=True)
class SweepConfig:
    """Runs over all combinations of these; () = the one value of the run."""

    lr: tuple[float, ...] = value((), "values of optim.lr", least=0, may_change=True)
    epochs: tuple[float, ...] = value((), "values of task.epochs", least=1e-3, may_change=True)
    seeds: tuple[int, ...] = value((), "values of run.seed", least=0, below=2**32, may_change=True)
