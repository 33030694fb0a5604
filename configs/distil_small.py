"""Distillation in minutes: a teacher of six layers and a student of three, on the English that ships with Python.

Paper      Sanh et al. 2019 (arXiv 1910.01108), made small.
Expect     The student begins with the teacher's layers 0, 2 and 5 and soon comes near its loss. docs/results.md has a
           longer run on other text, with each loss removed in turn.
Hardware   2 CPU cores.
Command    bertjax tokenizer --config=distil_small:teacher --workdir=runs/teacher
           bertjax prepare   --workdir=runs/teacher
           bertjax pretrain  --workdir=runs/teacher
           bertjax pretrain  --config=distil_small:student --workdir=runs/student
           bertjax compare runs/teacher runs/student

The student uses the tokenizer and the data set of its teacher, runs/teacher. For a teacher elsewhere, set
data.tokenizer, data.prepared, run.init_from and teacher.path.
"""

from bertjax.config.recipe import default

TEACHER = "runs/teacher"


def get_config(role="student"):
    """The recipe of the teacher or of the student."""
    if role not in ("teacher", "student"):
        raise ValueError(f"role {role!r} is not one of teacher, student")
    config = default()
    config.model.update(
        vocab_size=4_000,
        num_layers=6,
        hidden_size=128,
        embedding_size=128,
        num_heads=2,
        ffn_size=512,
        max_positions=64,
        initializer="beside",
        token_types=0,
        heads=("mlm_head",),
        dropout=0.0,
        attention_dropout=0.0,
    )
    config.objective.pair = 0.0
    config.data.update(holdout=0.05, batch_size=32, seq_len=64, max_predictions=10)
    config.data.examples = "doc_sentences"
    config.optim.update(lr=3e-3, warmup_steps=200, bias_correction=True, b2=0.98)
    config.run.update(steps=1_500, log_every=25, eval_every=250, eval_rows=1_024, save_every=250)
    if role == "student":
        config.model.num_layers = 3
        config.objective.update(soft=5.0, mlm=2.0, cosine=1.0)
        config.teacher.update(path=TEACHER, temperature=2.0, dtype="float32")
        config.data.update(tokenizer=f"{TEACHER}/tokenizer/spiece.model", prepared=f"{TEACHER}/data")
        config.run.init_from = TEACHER
    return config
