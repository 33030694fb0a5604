"""Text -> a tokenizer file, which `bertjax.data.tokenizer` reads.

unigram    a SentencePiece model, trained as ALBERT's
wordpiece  a vocab.txt, trained as BERT's
alphabets  the lists of pieces of SMILES, proteins, DNA and ids

Imports `data` and what that imports.
"""
