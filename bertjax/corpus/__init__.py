"""Text -> a prepared data set and its tokenizer, before training, which never imports this.

units            the source cut into stretches that one process reads by itself, and their documents
files            text files in seven forms, as paragraphs
lines            the lines of a text file, plain or compressed
tables           Parquet files and the data sets of TFDS
builtin          the prose that comes with Python
ids              sequences of integers, which no tokenizer encodes
sentences        a paragraph cut into sentences
shards           a unit tokenised, as records on disk
prepare          all units, in parallel; what was stopped goes on
beam             Apache Beam as what runs them
assemble         all units as one data set
train_tokenizer  the training of a SentencePiece model
alphabets        the tokenizers of SMILES, proteins, DNA and ids
doubts           what in a text speaks against the settings

Imports `data` and what that imports.
"""
