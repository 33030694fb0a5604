"""A small byte-level BPE as RoBERTa has, trained on the spot."""

import tokenizers

TEXT = [
    f"The {noun} of the {place} was {word} in {year}, and nobody said why."
    for noun in ("king", "garden", "house", "river", "winter")
    for place in ("north", "city", "island", "valley")
    for word in ("lost", "found", "quiet", "beautiful")
    for year in (1815, 1900, 2020)
]
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
SIZE = 357  # all that can be learnt from the text


def train_bpe(path, *, specials=ROBERTA, prefix_space=False, normalizer=None):
    """A tokenizer.json as the tokenizers library writes it, with cutting and padding switched on."""
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.normalizer = normalizer
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=SIZE, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(TEXT, trainer)
    cls, sep = ((piece, bpe.token_to_id(piece)) for piece in (specials[0], specials[2]))
    bpe.post_processor = tokenizers.processors.RobertaProcessing(sep, cls)
    bpe.enable_truncation(4)
    bpe.enable_padding()
    bpe.save(str(path))
    return path
