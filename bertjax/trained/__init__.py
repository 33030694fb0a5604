"""A trained model, of a work directory or a Hugging Face directory, and what one does with it.

load       a trained model of either kind of directory, on the host
inference  a model to call: outputs, embeddings of texts; `bertjax.load`
fill_mask  which words fit into the masked places of a text
predict    labels, numbers, tags, answers and choices for texts
texts      what texts are asked as
predicted  logits of examples -> predictions of records
answers    of them, the answers in a text
pairs      minimal pairs as files: BLiMP, Zorro, own ones
score      how likely it finds whole sentences
warmstart  the parameters of a new run from a trained model of another shape
exchange   between the two kinds of directory: `bertjax import` and `bertjax export`

Imports `config`, `storage`, `parallel`, `model`, `huggingface`, of `data` the tokenizer, of `train` its files and the
jitted step. No grain, no array_record, no tensorflow_datasets: a model is loaded where nothing is trained.
"""
