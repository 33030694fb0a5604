"""Sequences that are no prose (SMILES, proteins, DNA, integers): a small nomic-bert.

Expect     A pattern that comes back is learnt in minutes: tests/test_alphabets_end_to_end.py plants one in random DNA.
Hardware   2 CPU cores for a try, one GPU for millions of sequences.
Command    bertjax tokenizer --config=sequences:dna --workdir=runs/dna --config.data.source='my_dna/*.txt'
           and `bertjax prepare` and `bertjax pretrain` with the same --workdir (docs/alphabets.md).

The argument is what the sequences are of: smiles, protein, dna (the default) or ids. The vocabulary of proteins and DNA
is given by rule; that of SMILES and ids depends on the text, and `bertjax tokenizer` says what it is. A sequence is a
document, and up to 6 of them share a row.
"""

from bertjax.config.recipe import default
from bertjax.config.structure import modern

VOCABULARY = {"smiles": 64, "protein": 31, "dna": 4**6 + 5 + 5, "ids": 1_005}


def get_config(alphabet="dna"):
    """The recipe for one alphabet: smiles, protein, dna or ids."""
    if alphabet not in VOCABULARY:
        raise ValueError(f"{alphabet!r} is not one of {', '.join(VOCABULARY)}")
    config = default()
    modern(config, num_layers=4, hidden_size=256)
    config.model.update(
        vocab_size=VOCABULARY[alphabet],
        max_positions=256,
        rotary_base=10_000.0,
        token_types=1,
        heads=("mlm_head",),
    )
    form = {"format": "ids"} if alphabet == "ids" else {"format": "lines", "alphabet": alphabet}
    config.data.update(case="cased", examples="doc_sentences", packing=6, holdout=0.05, **form)
    config.data.update(batch_size=32, seq_len=256, max_predictions=40)
    config.objective.pair = 0.0
    config.optim.update(lr=2e-3, warmup_steps=200, bias_correction=True, b2=0.98)
    config.run.update(steps=5_000, log_every=50, eval_every=500, eval_rows=1_024, save_every=500)
    return config
