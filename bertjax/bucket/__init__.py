"""A work directory in a bucket of Google Cloud Storage, `gs://BUCKET/PATH`: what is different there.

objects   reads, writes and lists with patience; one line for what cannot be
path      a path there, with the methods of pathlib, for bertjax and for Orbax
lease     who may write there: a lock that expires
copies    data set and tokenizer, whose readers need files, on the disk of this host

Imports `console`, `errors`, `storage`, `workers`. TensorStore and etils are imported once a path begins with gs://.
"""
