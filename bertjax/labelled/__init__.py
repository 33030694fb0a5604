"""Labelled examples: from files to batches, for fine-tuning and what follows it.

records    what one labelled example is, whatever its file
reading    files and TFDS splits -> records
source     the lines of a file as text, and what was odd in them
fields     the values of a row -> a record
tables     tab- and comma-separated files and JSON lines, by columns
conll      words and tags, a line each
squad      questions on texts, with their answers
labels     the set of labels, found or checked; all spellings of tags as one
example    tokens with labels at them
encode     records -> examples
windows    the same for sentences and texts that are longer than a row, and where tokens are in a text
batches    examples -> rows, packed or in buckets, and batches in the order of an epoch

Imports `config`, `batch`, `errors`, `console`, `storage`, `data` (the tokenizer, packing) and `corpus` (files, TFDS).
`encode` and what it imports need none of the packages that read data sets. Nothing here creates a JAX array.
"""
