"""Tasks with labels, learnt by the engine in `train`, and what a model is worth in them.

finetune    a run, or all of a sweep, from random weights or a trained model, to its result
inputs      what it learns from: records, tokenizer, labels, and the config that follows from them
terms       the losses
evaluation  what a model gets right of labelled examples
scores      the metrics of that
outcome     predictions as files, and which labels are taken for which as a picture
sweep       runs at several rates, lengths and seeds, which share one compiled step
ranking     which of them is best, and by how much they differ

Imports all below, of `tasks` whether a run fits into memory.
"""
