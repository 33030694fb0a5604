"""What is made of which fields before a run begins: such a field may change as long as that has not been made.

What may change once a run has begun, each field says of itself (`bertjax.config.limits`).
"""

TEXT = ("data.source", "data.format", "data.text_field", "data.case")
"""SECTION.FIELD of what decides which text is read, and how."""

TOKENIZER = (*TEXT, "data.tokenizer_kind", "data.alphabet", "data.kmer", "model.vocab_size")
"""What decides the tokenizer. run.seed is not here: it only draws a sample of over 10 million sentences."""

DATA_SET = (*TEXT, "data.holdout")
"""What decides the prepared data set, beside its tokenizer."""
