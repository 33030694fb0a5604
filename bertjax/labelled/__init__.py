"""Labelled examples: from files to batches, for fine-tuning and what follows it.

records   what one labelled example is, whatever its file
reading   files and TFDS splits -> records
tables    tab- and comma-separated files and JSON lines, by columns
conll     words and tags, a line each
squad     questions on texts, with their answers
fields    a record from the values of a row
source    the lines of a file, and what was odd in them
labels    the set of labels, found or checked
entities  the names in a sequence of tags
example   tokens with labels at them
encode    records -> examples
windows   of sentences and texts that are longer than a row
batches   examples -> rows, packed or in buckets, and batches in the order of an epoch

Imports `config`, `batch`, `errors`, `storage`, `console`, `data` (the tokenizer) and `corpus` (opening of files).
Nothing here creates a JAX array.
"""
