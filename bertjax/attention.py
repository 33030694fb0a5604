"""Multi-head attention over packed rows: one signature, whatever computes it.

Shape letters: B rows, Q query positions, K key positions, N heads, D head dimension, L row length.
"""

import jax
import jax.numpy as jnp

from bertjax.dropout import dropout


def attend(
    q_BQND: jax.Array,
    k_BKND: jax.Array,
    v_BKND: jax.Array,
    segments_BL: jax.Array,
    *,
    dropout_rate: float,
    key: jax.Array | None,
) -> jax.Array:
    """Softmax attention within equal segments; returns [B, Q, N, D] in the dtype of `q_BQND`.

    A token sees the tokens of its own example only, padding (segment 0) sees padding, so that no row of the softmax is
    empty and real positions never depend on what stands in the padding. Scores and softmax are float32. `key` draws
    the dropout of the probabilities; None means none.
    """
    scale = q_BQND.shape[-1] ** -0.5
    scores_BNQK = jnp.einsum("BQND,BKND->BNQK", q_BQND * scale, k_BKND, preferred_element_type=jnp.float32)
    same_B1QK = segments_BL[:, None, :, None] == segments_BL[:, None, None, :]
    scores_BNQK = jnp.where(same_B1QK, scores_BNQK, jnp.finfo(jnp.float32).min)
    probs_BNQK = jax.nn.softmax(scores_BNQK, axis=-1).astype(v_BKND.dtype)
    probs_BNQK = dropout(probs_BNQK, dropout_rate, key)
    return jnp.einsum("BNQK,BKND->BQND", probs_BNQK, v_BKND)
