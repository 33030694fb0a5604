"""Kernels that are written here, since no library has them: flash attention for encoders, with dropout inside.

counter   which probabilities are dropped: a function of seed, row, head, query and key
case      what a kernel is compiled for
flash     `flash_attention`: forward and backward, and which blocks see each other
triton    its kernels for GPUs
mosaic    its kernels for TPUs

Imports nothing else of the package. `model/attention.py` says when they are chosen.
"""
