"""Host-side data code: text to tokenised documents to batches. Numpy only, nothing here imports jax."""
