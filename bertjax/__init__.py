"""Pretraining of BERT, ALBERT and DistilBERT in JAX and Flax."""
