"""The tasks of GLUE, with the published settings of each family.

Expect     BERT-base, GLUE test: CoLA 52.1, SST-2 93.5, MRPC 88.9, STS-B 85.8, QQP 71.2, MNLI 84.6, QNLI 90.5, RTE 66.4
           (Devlin et al. 2019, table 1). What small models of one's own reach: docs/results.md.
Hardware   one GPU or TPU for models of published size; `small` for 2 CPU cores.
Command    bertjax finetune --config=configs/finetune/glue.py:sst2 --workdir=DIR --config.run.init_from=MODEL

The argument is TASK[,FAMILY]: cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte or wnli, and bert, albert, distilbert,
modernbert or small. The examples come from TFDS; files of GLUE's download are named with --config.task.train and
--config.task.dev.
RTE, MRPC and STS-B gain much from a model that was fine-tuned on MNLI: name it as run.init_from.

bert, distilbert   3 epochs of 32 examples (Devlin et al. 2019, A.3); the paper takes the best rate of 5, 4, 3 and 2e-5:
                   --config.sweep.lr=2e-5,3e-5,4e-5,5e-5
albert             table 14 of Lan et al. 2020, whose rows are 512 long
modernbert         as MosaicBERT (Portes et al. 2023), with beta 0.9 and 0.98
small              4 epochs at 3e-4, the first of the rates that Google's small models were given
"""

from bertjax.config.recipe import default

COLUMNS = {
    "cola": ("sentence", ""),
    "sst2": ("sentence", ""),
    "mrpc": ("sentence1", "sentence2"),
    "stsb": ("sentence1", "sentence2"),
    "qqp": ("question1", "question2"),
    "mnli": ("premise", "hypothesis"),
    "qnli": ("question", "sentence"),
    "rte": ("sentence1", "sentence2"),
    "wnli": ("sentence1", "sentence2"),
}
"""Task -> the columns of its one text, or of its two."""

NO_HEADER = {
    "cola": ("source", "label", "mark", "sentence"),
    "stsb": ("genre", "file", "year", "id", "label", "sentence1", "sentence2"),
}
"""Task -> the columns of its files where these have no header."""

METRIC = {"cola": "matthews", "stsb": "pearson", "mrpc": "f1", "qqp": "f1"}
"""Task -> by what it is judged, where that is not accuracy."""

ALBERT = {  # lr, batch, dropout, steps, warm-up
    "cola": (1e-5, 16, 0.0, 5_336, 320),
    "stsb": (2e-5, 16, 0.0, 3_598, 214),
    "sst2": (1e-5, 32, 0.0, 20_935, 1_256),
    "mnli": (3e-5, 128, 0.0, 10_000, 1_000),
    "qnli": (1e-5, 32, 0.0, 33_112, 1_986),
    "qqp": (5e-5, 128, 0.1, 14_000, 1_000),
    "rte": (3e-5, 32, 0.1, 800, 200),
    "mrpc": (2e-5, 32, 0.0, 800, 200),
    "wnli": (2e-5, 16, 0.1, 2_000, 250),
}
MODERN = {  # lr, batch, epochs
    "mnli": (5e-5, 48, 3.0),
    "rte": (1e-5, 16, 3.0),
    "qqp": (3e-5, 16, 5.0),
    "cola": (5e-5, 32, 10.0),
    "mrpc": (8e-5, 32, 10.0),
    "qnli": (1e-5, 16, 10.0),
    "sst2": (3e-5, 16, 3.0),
    "stsb": (3e-5, 32, 10.0),
    "wnli": (1e-5, 16, 3.0),  # not in the paper: as RTE
}
FAMILIES = ("bert", "albert", "distilbert", "modernbert", "small")


def get_config(argument="sst2"):
    """The recipe of TASK[,FAMILY]."""
    task, _, family = argument.partition(",")
    family = family or "bert"
    if task not in COLUMNS or family not in FAMILIES:
        raise ValueError(f"{argument!r} must be TASK[,FAMILY]: {', '.join(COLUMNS)}; {', '.join(FAMILIES)}")
    config = default()
    text, pair = COLUMNS[task]
    held_out = "validation_matched" if task == "mnli" else "validation"
    config.task.update(
        name=task,
        kind="regress" if task == "stsb" else "classify",
        train=(f"tfds:glue/{task}[train]",),
        dev=(f"tfds:glue/{task}[{held_out}]",),
        columns=NO_HEADER.get(task, ()),
        text=text,
        pair=pair,
        metric=METRIC.get(task, "auto"),
    )
    config.data.update(batch_size=32, seq_len=128, buckets=(32, 64, 128))
    config.optim.update(lr=3e-5, bias_correction=True, shift_decay=True)
    if family == "albert":
        lr, rows, dropout, steps, warmup = ALBERT[task]
        config.model.update(dropout=dropout, attention_dropout=dropout)
        config.data.update(batch_size=rows, seq_len=512, buckets=(64, 128, 256, 512))
        config.optim.update(lr=lr, warmup_steps=warmup)
        config.task.epochs = 0.0
        config.run.update(steps=steps, eval_every=steps // 10, save_every=steps // 10)
    if family == "modernbert":
        lr, rows, epochs = MODERN[task]
        config.model.update(dropout=0.0, attention_dropout=0.0, classifier_dropout=0.0)
        config.data.batch_size = rows
        config.optim.update(lr=lr, b2=0.98, weight_decay=5e-6, decay_by_lr=False)
        config.task.update(epochs=epochs, warmup=0.06)
    if family == "small":
        config.data.update(seq_len=64, buckets=(16, 32, 64))
        config.optim.lr = 3e-4
        config.task.epochs = 4.0
    return config
