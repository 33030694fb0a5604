"""Labelled examples: from files to batches, for fine-tuning and what follows it.

records    what one labelled example is, whatever its file
reading    files and TFDS splits -> records
tables     tab- and comma-separated files and JSON lines, by columns
conll      words and tags, a line each
squad      questions on texts, with their answers
labels     the set of labels, found or checked
encode     records -> tokens with labels at them, and back to characters
batches    tokens -> rows, packed or in buckets, and batches in the order of an epoch
predicted  outputs on batches -> what a model says of each record
answers    logits of the windows of a text -> the answer of a question
entities   tags -> entities, by the rules of conlleval

Imports `config`, `batch`, `errors`, `storage`, `data` (the tokenizer) and `corpus` (opening of files). Nothing here
creates a JAX array.
"""
