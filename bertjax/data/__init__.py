"""A prepared data set -> batches, at training time. NumPy only: nothing here makes a JAX array.

tokenizer    text to ids and back: SentencePiece, WordPiece, tokenizer.json
trial        a tokenizer that nobody has tried, tried in a process of its own
dataset      the prepared data set on disk: its format, opening and verifying it
records      its records, in shards that are checked before their use
planning     which stretches of a split each example of an epoch holds
original     the same by the rules of the released BERT and ALBERT code
examples     a planned example, read: [CLS] A [SEP] B [SEP]
packing      which examples share a row
order        which examples row r of a run holds
masking      which tokens are to be predicted, and what stands in their place
batches      rows as arrays
loader       batches made ahead, in threads or processes
processes    batches from processes, through pipes; one that dies or hangs is noticed

Imports `config`, `batch`, `storage`, `workers` and `errors`.
"""
