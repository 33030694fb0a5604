"""DistilBERT, the student's architecture: BERT-base with every second layer, no token types and no pooler.

Paper      Sanh et al. 2019 (arXiv 1910.01108).
Expect     66,362,880 encoder parameters, 40 % fewer than BERT-base, and half of its layers' FLOPs.
Hardware   the paper: 8 V100 of 16 GB for about 90 hours.
Command    bertjax pretrain --config=configs/distilbert.py --workdir=runs/distilbert \
               --config.data.tokenizer=vocab.txt --config.data.prepared=data/wiki-books

As it stands it trains this architecture from scratch on masked words alone, without a teacher.
"""

import bertjax.config


def get_config():
    """The recipe; it takes no argument."""
    config = bertjax.config.default()
    config.model.update(
        num_layers=6,
        token_types=0,
        pooler=False,
        pair_head=False,
        activation="gelu_erf",
        attention_output_dropout=False,
    )
    config.objective.pair = 0.0
    config.data.update(examples="doc_sentences", mask_smoothing=0.7, batch_size=4_000, seq_len=512, max_predictions=77)
    config.optim.update(lr=5e-4, b2=0.98, weight_decay=0.0, clip_norm=5.0, warmup_steps=1_000, shift_decay=True)
    config.optim.bias_correction = True
    config.run.steps = 20_000
    return config
