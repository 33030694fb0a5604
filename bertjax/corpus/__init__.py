"""Text -> a prepared data set, before training, which never imports this.

units      the source cut into stretches that one process reads by itself, and their documents
files      text files in seven forms, as paragraphs
opening    a file as the bytes of text: unpacked, recoded, refused where it is no text
lines      the lines of a text file
tables     Parquet files and the data sets of TFDS
builtin    the prose that comes with Python
ids        sequences of integers, which no tokenizer encodes
sentences  a paragraph cut into sentences
shards     a unit tokenised, as records on disk
prepare    all units, in parallel; what was stopped goes on
beam       Apache Beam as what runs them
assemble   all units as one data set
doubts     what in a text, or a data set, speaks against the settings

Imports `data` and what that imports.
"""
