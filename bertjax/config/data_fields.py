"""The section `data` of the schema: where the text comes from and how it becomes batches."""

from dataclasses import dataclass

from bertjax.config.limits import value


@dataclass(frozen=True)
class DataConfig:
    """Where the text comes from and how it becomes batches."""

    source: tuple[str, ...] = value(
        ("builtin",), "builtin, paths, glob patterns, tfds:NAME[SPLIT]", path=True, may_change=True
    )
    mix: tuple[float, ...] = value(
        (), "shares of the rows for the entries of source; () = as much as each holds", least=0
    )
    format: str = value(
        "auto",
        "file (a document), paragraphs, sentences (one a line), lines (a document each, not split), fasta, ids"
        " (lines of integers), wikiextractor, jsonl, parquet; auto = by name and beginning",
        choices=(
            "auto",
            "file",
            "paragraphs",
            "sentences",
            "lines",
            "fasta",
            "ids",
            "wikiextractor",
            "jsonl",
            "parquet",
        ),
        may_change=True,
    )
    text_field: str = value("text", "jsonl, parquet, tfds: the field that holds the text", may_change=True)
    tokenizer: str = value(
        "",
        "a .model, vocab.txt or tokenizer.json; '' = in WORKDIR/tokenizer, where `bertjax tokenizer` writes",
        path=True,
        may_change=True,
    )
    tokenizer_kind: str = value(
        "sentencepiece",
        "what `bertjax tokenizer` trains: sentencepiece (spiece.model, as ALBERT), wordpiece (vocab.txt, as BERT)",
        choices=("sentencepiece", "wordpiece"),
        may_change=True,
    )
    alphabet: str = value(
        "words",
        "of what `bertjax tokenizer` makes pieces: words, smiles, protein (letters), dna (k-mers)",
        choices=("words", "smiles", "protein", "dna"),
        may_change=True,
    )
    kmer: int = value(6, "alphabet = dna: letters of a piece", least=1, below=9, may_change=True)
    case: str = value(
        "auto",
        "uncased: lower case, and no accents, before tokenising; cased; auto = cased where the text needs it, or the"
        " pieces of the tokenizer that is there",
        choices=("auto", "uncased", "cased"),
    )
    prepared: str = value("", "directory of the prepared data set; '' = WORKDIR/data", path=True, may_change=True)
    prepare_workers: int = value(
        0, "of `bertjax prepare`; 0 = one per core; the result is the same", least=0, below=513, may_change=True
    )
    holdout: float = value(0.01, "share of the documents kept for evaluation", least=0, below=1, may_change=True)
    batch_size: int = value(256, "rows of a global batch, over all devices and microbatches", least=1, below=2**21)
    seq_len: int = value(128, "length of a row, at most model.max_positions", least=5)
    examples: str = value(
        "nsp",
        "nsp, sop (two segments, a label), full_sentences, doc_sentences (one segment, no label)",
        choices=("nsp", "sop", "full_sentences", "doc_sentences"),
    )
    short_seq_prob: float = value(
        0.1, "nsp, sop: share of examples with a random, shorter target length", least=0, below=1
    )
    original_flaws: bool = value(False, "nsp, sop: as the released code makes them, leaks included (data/original.py)")
    packing: int = value(1, "most examples in a row; 1 = each in a row of its own", least=1)
    buckets: tuple[int, ...] = value(
        (), "row lengths, as 128,256,512: a batch takes the least that holds its examples; () = seq_len", least=5
    )
    masking: str = value(
        "token",
        "what is chosen as a whole: token, whole_word, ngram (of whole words)",
        choices=("token", "whole_word", "ngram"),
    )
    max_ngram: int = value(3, "masking = ngram: n words, as often as 1/n says, n up to this", least=1, below=64)
    mask_rate: float = value(0.15, "share of an example's tokens to predict", least=0, below=1)
    final_mask_rate: float = value(
        0.0,
        "mask_rate goes there evenly over the rows of the run; evaluations have it throughout; 0.0 = it stays",
        least=0,
        below=1,
    )
    mask_count: int = value(0, "tokens of an example to predict, instead of the rate; 0 = by mask_rate", least=0)
    mask_smoothing: float = value(
        0.0, "masking = token: chosen in proportion to count^-mask_smoothing (DistilBERT: 0.7)", least=0
    )
    mask_shares: tuple[float, ...] = value(
        (0.8, 0.1, 0.1), "of the chosen tokens: shown as [MASK], as a random piece, as they are", least=0
    )
    mask_together: bool = value(False, "True: mask_shares is drawn for each word or n-gram as a whole")
    max_predictions: int = value(20, "prediction slots of a row; more masks than slots are not made", least=1)
    loader_threads: int = value(
        4, "threads that make batches ahead of the device, in each process", least=1, below=257, may_change=True
    )
    loader_workers: int = value(0, "processes that do it; 0 = threads of this one", least=0, below=257, may_change=True)
    loader_timeout: int = value(
        300, "seconds that such a process may take for a batch; then the run saves and ends", least=1, may_change=True
    )

    @property
    def pairs(self) -> bool:
        """Whether examples have two segments and a label."""
        return self.examples in ("nsp", "sop")

    @property
    def lower_case(self) -> bool | None:
        """Whether a text loses its case and its accents; None: that follows from the text or the tokenizer."""
        return {"auto": None, "uncased": True, "cased": False}[self.case]

    @property
    def last_mask_rate(self) -> float:
        """The rate at the end of the run, and of every evaluation."""
        return self.final_mask_rate or self.mask_rate

    @property
    def by_rule(self) -> bool:
        """Whether a rule says what the pieces are, so that the tokenizer is a list of them."""
        return self.alphabet != "words" or self.format == "ids"

    @property
    def row_lengths(self) -> tuple[int, ...]:
        """The lengths that rows can have, ascending; the last is `seq_len`."""
        return self.buckets or (self.seq_len,)
