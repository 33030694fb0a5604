"""Model directories of Hugging Face transformers, in and out.

names        tables: how each family names its parameters
structure    which family holds a model, and what it has otherwise
config_json  the model that a config.json describes, and back
labels       the head for labels in it
safetensors  JSON and safetensors files, checked before they are used
weights      our parameters and their tensors
tokenizers   the files of the tokenizer
card         the model card
sentence_files  those by which other tools take it for a sentence encoder
directory    the way in: `read` and `write` a whole directory

Imports `config`, `storage`, `data` (for the tokenizer) and `model`. transformers itself is never imported.
"""
