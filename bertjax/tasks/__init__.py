"""What a run without labels is for: each task is a value that the engine in `train` is given.

inputs      the tokenizer and the data set of a run: made where they are missing, opened and checked where they are
pretrain    masked words and pairs of segments, from random weights or a trained model
terms       their losses
fit         whether a run fits into memory, and what would
distill     a teacher beside them: it wraps the forward function and adds terms
teacher     the model that is learnt from: opened, checked, put on the devices
evaluate    losses and accuracies on held-out text
minimal_pairs  which of two sentences is likelier, by command and during training

Imports everything below: `config`, `data`, `model`, `corpus`, `train`, `trained`.
"""
