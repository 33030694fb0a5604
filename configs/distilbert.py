"""DistilBERT: BERT-base with half of its layers, taught by it.

Paper      Sanh et al. 2019 (arXiv 1910.01108).
Expect     66,362,880 encoder parameters, 40 % fewer than BERT-base, and half of its layers' FLOPs. GLUE macro score
           77.0 against 79.5 of BERT-base; without the soft targets 2.96 less, without the cosine 1.46, without masked
           words 0.31, with random initialisation 3.69.
Hardware   the paper: 8 V100 of 16 GB for about 90 hours.
Command    bertjax pretrain --config=distilbert:runs/bert-base --workdir=runs/distilbert \
               --config.data.tokenizer=vocab.txt --config.data.prepared=data/wiki-books

The argument is the teacher: a work directory or a Hugging Face directory of BERT or RoBERTa, with the tokenizer that
the data set was prepared with. As in the released code, the student begins with the teacher's layers 0, 2, 4, 7, 9 and
11, keeps its position table fixed, learns from all real tokens, and compares the last hidden states. To train the same
architecture without a teacher, set objective.soft and objective.cosine to 0.0 and leave teacher.path, run.init_from and
optim.freeze empty.
"""

from bertjax.config.recipe import default


def get_config(teacher="runs/bert-base"):
    """The recipe of a student of this teacher."""
    config = default()
    config.model.update(
        num_layers=6,
        token_types=0,
        heads=("mlm_head",),
        activation="gelu_erf",
        attention_output_dropout=False,
    )
    config.objective.update(soft=5.0, mlm=2.0, cosine=1.0, pair=0.0)
    config.teacher.update(path=teacher, temperature=2.0)
    config.data.update(examples="doc_sentences", mask_smoothing=0.7, batch_size=4_000, seq_len=512, max_predictions=77)
    config.optim.update(lr=5e-4, b2=0.98, weight_decay=0.0, clip_norm=5.0, warmup_steps=1_000, shift_decay=True)
    config.optim.bias_correction = True
    config.optim.freeze = ("encoder/embeddings/position",)
    config.run.update(steps=20_000, init_from=teacher)
    return config
