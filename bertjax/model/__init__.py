"""The encoder of the BERT family and its heads: one model, many numbers.

ops         dropout, activations and the tied decoder, with the backward passes that are written by hand
beside      an initialiser for learned positions
layers      what layers are made of: initialisers, linear maps, LayerNorm
positions   rotary positions
attention   `attend`: attention within equal segments, and which kernel computes it
encoder     embeddings and layers, shared or not, in nested scans
heads       one table of what may stand on the encoder
network     the encoder with the heads that are asked for: parameters, outputs, shardings
cost        parameters, FLOPs and MFU, from numbers alone

Imports `config`, `batch`, `kernels` and `parallel`. Nothing here knows a loss, an optimizer or where a batch comes
from.
"""
