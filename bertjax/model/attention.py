"""Multi-head attention over packed rows: one signature, whatever computes it.

Shape letters: B rows, Q query positions, K key positions, N heads, D head dimension, L row length (both Q and K).

| backend   | computed by                                          | serves                                        |
|-----------|------------------------------------------------------|-----------------------------------------------|
| reference | two matrix products and a softmax: what is right     | everything                                    |
| xla       | the same by `jax.nn.dot_product_attention`           | all but dropout of the probabilities          |
| cudnn     | cuDNN's flash attention by that function             | no dropout either; GPU, half precision, L of  |
|           |                                                      | multiples of 128, D of multiples of 8 to 128  |
| splash    | JAX's flash attention for TPU, a Pallas kernel       | no dropout either; TPU, L of multiples of 128 |
| flash     | `bertjax.kernels.flash`: our own, with the dropout   | GPU, TPU; L of multiples of 64, 128; D to 128 |

The last three keep scores and probabilities, B * N * L * L numbers each, out of memory. What is dropped is a function
of key, row, head, query and key position alone (`bertjax.kernels.counter`), so reference and flash drop the same.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from bertjax.config.schema import ComputeConfig, ModelConfig
from bertjax.errors import ConfigError
from bertjax.kernels import counter
from bertjax.kernels.flash import flash_attention
from bertjax.parallel.sharding import free_axes, row_numbers, spec

FLASH = {"gpu": "cudnn", "tpu": "splash"}
"""Platform -> the library's backend that never writes its scores to memory."""

LEAST_LENGTH = {"cudnn": 128, "splash": 512}
"""From which row length `auto` takes them. By these counts, not by measurement:

XLA writes L scores for each token and head, 8 times a hidden state of D = 64 at L = 512 and twice at 128; and a step of
the splash kernel is one head of one row, which at 128 has a sixteenth of the work to hide the step's fixed cost.
"""


def attend(
    q_BQND: jax.Array,
    k_BKND: jax.Array,
    v_BKND: jax.Array,
    segments_BL: jax.Array,
    *,
    dropout_rate: float,
    key: jax.Array | None,
    backend: str,
    window: int = 0,
    is_local: jax.Array | None = None,
) -> jax.Array:
    """Softmax attention within equal segments; returns [B, Q, N, D] in the dtype of `q_BQND`.

    A token sees the tokens of its own example only, padding (segment 0) sees padding, so that no row of the softmax is
    empty and real positions never depend on what stands in the padding. Where the scalar `is_local` is true, it sees
    those at most `window` away from it; whether it is may depend on the layer of a scan. Scores and softmax are
    float32. `key` draws the dropout of the probabilities; None means none. `backend` is a value of `compute.attention`:
    `auto` means what `choose` says when the caller is traced; any other that cannot serve raises ConfigError.
    """
    _, length, _, head_dim = q_BQND.shape
    dropping = key is not None and dropout_rate > 0.0
    case = (_platform(), q_BQND.dtype.name, length, head_dim, dropping)
    if backend == "auto":
        backend = choose(*case)
    _require(backend, *case)
    if is_local is None or window >= length - 1:
        is_local = jnp.zeros([], bool)
        window = 0
    keys_BN2 = None
    if key is not None and dropping:
        keys_BN2 = _head_keys(key, q_BQND.shape[0], q_BQND.shape[2])
    if backend == "reference":
        mask_B1QK = _visible(segments_BL, window, is_local)
        return _reference(q_BQND, k_BKND, v_BKND, mask_B1QK, dropout_rate, keys_BN2)
    if backend == "xla":
        return _library("xla", window, q_BQND, k_BKND, v_BKND, segments_BL, is_local)
    kernels = {
        "splash": partial(_splash, window),
        "cudnn": partial(_library, "cudnn", window),
        "flash": partial(_flash, window, dropout_rate),
    }
    return _on_each_device(kernels[backend], q_BQND, k_BKND, v_BKND, segments_BL, is_local, keys_BN2)


def choose(platform: str, dtype: str, length: int, head_dim: int, dropping: bool) -> str:
    """The backend that `compute.attention = auto` stands for; `dropping`: probabilities are dropped (training).

    | platform | dropping | length, head_dim, dtype                      | backend   |
    |----------|----------|----------------------------------------------|-----------|
    | cpu      | any      | any                                          | reference |
    | gpu, tpu | yes      | any                                          | reference |
    | gpu      | no       | as cudnn needs them                          | cudnn     |
    | tpu      | no       | as splash needs them, and length >= 512      | splash    |
    | gpu, tpu | no       | other                                        | xla       |
    """
    if dropping or platform not in FLASH:
        return "reference"
    flash = FLASH[platform]
    fits = length >= LEAST_LENGTH[flash] and not _lacks(flash, platform, dtype, length, head_dim, dropping)
    return flash if fits else "xla"


def check(model: ModelConfig, compute: ComputeConfig, lengths: Sequence[int], platform: str) -> None:
    """Raise ConfigError if `compute.attention` cannot train this model on rows of these lengths on `platform` (cpu,
    gpu, tpu).
    """
    for length in lengths if compute.attention != "auto" else ():
        head_dim, dropping = model.hidden_size // model.num_heads, model.attention_dropout > 0.0
        _require(compute.attention, platform, compute.dtype, length, head_dim, dropping)


def _require(backend: str, platform: str, dtype: str, length: int, head_dim: int, dropping: bool) -> None:
    lacks = _lacks(backend, platform, dtype, length, head_dim, dropping)
    if lacks:
        needs = "; ".join(lacks)
        raise ConfigError(f"compute.attention = {backend}: needs {needs}; or set compute.attention = reference")


def _lacks(backend: str, platform: str, dtype: str, length: int, head_dim: int, dropping: bool) -> list[str]:
    """What `backend` needs and does not have here."""
    needs = []
    if backend not in ("reference", "flash"):
        needs += [(not dropping, "no dropout of the probabilities (model.attention_dropout = 0.0)")]
    if backend in FLASH.values():
        needs += [
            (FLASH.get(platform) == backend, f"a {'GPU' if backend == 'cudnn' else 'TPU'}, not {platform}"),
            # cuDNN takes multiples of 64, but with a mask its gradients can be NaN at the odd ones.
            (length % 128 == 0, f"rows (data.seq_len, data.buckets) of a multiple of 128, not {length}"),
        ]
    if backend == "flash":
        least, most = (128, 8192 // jnp.dtype(dtype).itemsize // 2) if platform == "tpu" else (64, length)
        needs += [
            (platform in FLASH, f"a GPU or a TPU, not {platform}"),
            (length % least == 0, f"rows (data.seq_len, data.buckets) of a multiple of {least}, not {length}"),
            # A TPU's kernel has a whole row of a few heads in fast memory.
            (length <= most, f"rows (data.seq_len, data.buckets) of at most {most} in {dtype}, not {length}"),
            (head_dim <= 128, f"heads (model.hidden_size / model.num_heads) of at most 128, not {head_dim}"),
        ]
    if backend == "cudnn":
        heads = f"heads (model.hidden_size / model.num_heads) of a multiple of 8 up to 128, not {head_dim}"
        needs += [
            (dtype in ("bfloat16", "float16"), f"compute.dtype = bfloat16, not {dtype}"),
            (head_dim % 8 == 0 and head_dim <= 128, heads),
        ]
    return [text for holds, text in needs if not holds]


def _platform() -> str:
    """Of the mesh that is set, which may be that of a TPU that is not here (ahead-of-time compilation)."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def _visible(segments_BL: jax.Array, window: int, is_local: jax.Array) -> jax.Array:
    """Who sees whom, [B, 1, Q, K]: one for all heads. `window` 0 = no layer is local."""
    same_B1QK = segments_BL[:, None, :, None] == segments_BL[:, None, None, :]
    if window == 0:
        return same_B1QK
    places_L = jnp.arange(segments_BL.shape[1])
    near_QK = jnp.abs(places_L[:, None] - places_L[None, :]) <= window
    return same_B1QK & (near_QK | ~is_local)[None, None, :, :]


def _reference(
    q_BQND: jax.Array,
    k_BKND: jax.Array,
    v_BKND: jax.Array,
    mask_B1QK: jax.Array,
    dropout_rate: float,
    keys_BN2: jax.Array | None,
) -> jax.Array:
    scale = q_BQND.shape[-1] ** -0.5
    scores_BNQK = jnp.einsum("BQND,BKND->BNQK", q_BQND * scale, k_BKND, preferred_element_type=jnp.float32)
    scores_BNQK = jnp.where(mask_B1QK, scores_BNQK, jnp.finfo(jnp.float32).min)
    probs_BNQK = jax.nn.softmax(scores_BNQK, axis=-1).astype(v_BKND.dtype)
    if keys_BN2 is not None:
        kept = counter.quantised(dropout_rate)
        is_kept_BNQK = counter.plain_mask(keys_BN2, q_BQND.shape[1], kept)
        probs_BNQK = jnp.where(is_kept_BNQK, probs_BNQK * jnp.asarray(2**16 / kept, probs_BNQK.dtype), 0)
    return jnp.einsum("BNQK,BKND->BQND", probs_BNQK, v_BKND)


def _head_keys(key: jax.Array, rows: int, heads: int) -> jax.Array:
    """Of all rows and heads, [B, N, 2], whichever device has them."""
    return counter.head_keys(counter.seed(key), row_numbers(rows), jnp.arange(heads, dtype=jnp.int32))


def _flash(
    window: int,
    dropout_rate: float,
    q_BQND: jax.Array,
    k_BKND: jax.Array,
    v_BKND: jax.Array,
    segments_BL: jax.Array,
    is_local: jax.Array,
    keys_BN2: jax.Array | None = None,
    *,
    platform: str | None = None,
) -> jax.Array:
    """`platform`: whose kernels are interpreted, for tests; None = those of this one, compiled."""
    return flash_attention(
        q_BQND,
        k_BKND,
        v_BKND,
        segments_BL,
        rate=dropout_rate,
        keys_BN2=keys_BN2,
        reach=jnp.where(is_local, window, q_BQND.shape[1]) if window else None,
        platform=platform or _platform(),
        interpret=platform is not None,
    )


def _library(
    implementation: Literal["xla", "cudnn"],
    window: int,
    q_BQND: jax.Array,
    k_BKND: jax.Array,
    v_BKND: jax.Array,
    segments_BL: jax.Array,
    is_local: jax.Array,
) -> jax.Array:
    # cuDNN needs the mask's Q and K whole; its heads stay one, in memory too.
    mask_B1QK = _visible(segments_BL, window, is_local)
    return jax.nn.dot_product_attention(q_BQND, k_BKND, v_BKND, mask=mask_B1QK, implementation=implementation)


def _splash(
    window: int,
    q_BQND: jax.Array,
    k_BKND: jax.Array,
    v_BKND: jax.Array,
    segments_BL: jax.Array,
    is_local: jax.Array,
    *,
    interpret: bool = False,
) -> jax.Array:
    """A kernel for global layers and, with a window, another that skips the blocks a local one does not see.

    `interpret` computes it anywhere, slowly, for tests.
    """
    whole, near = (partial(_splash_of, reach, interpret=interpret) for reach in (None, (window, window)))
    operands = (q_BQND, k_BKND, v_BKND, segments_BL)
    return jax.lax.cond(is_local, near, whole, *operands) if window else whole(*operands)


def _splash_of(
    reach: tuple[int, int] | None,
    q_BQND: jax.Array,
    k_BKND: jax.Array,
    v_BKND: jax.Array,
    segments_BL: jax.Array,
    *,
    interpret: bool,
) -> jax.Array:
    """`reach`: how far to the left and to the right a token sees; None = everywhere."""
    # Here, since Pallas takes a quarter of a second to import and only TPUs need it.
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask

    _, length, heads, head_dim = q_BQND.shape
    block = next(size for size in (512, 384, 256, 128) if length % size == 0)
    sizes = splash.BlockSizes(
        block_q=block, block_kv=block, block_q_dkv=block, block_kv_dkv=block, use_fused_bwd_kernel=True
    )
    one: Any = splash_attention_mask.FullMask((length, length))
    if reach:
        one = splash_attention_mask.LocalMask((length, length), reach, offset=0)
    mask = splash_attention_mask.MultiHeadMask([one] * heads)
    kernel = splash.make_splash_mha_single_device(mask, block_sizes=sizes, interpret=interpret)

    def one_row(q_QND: jax.Array, k_KND: jax.Array, v_KND: jax.Array, segments_L: jax.Array) -> jax.Array:
        q_NQD, k_NKD, v_NKD = (jnp.swapaxes(x, 0, 1) for x in (q_QND, k_KND, v_KND))
        segment_ids = splash.SegmentIds(q=segments_L, kv=segments_L)
        return jnp.swapaxes(kernel(q_NQD, k_NKD, v_NKD, segment_ids=segment_ids), 0, 1)

    # The kernel does not scale.
    return jax.vmap(one_row)(q_BQND * head_dim**-0.5, k_BKND, v_BKND, segments_BL.astype(jnp.int32))


def _on_each_device(
    kernel: Callable[..., jax.Array],
    q_BQND: jax.Array,
    k_BKND: jax.Array,
    v_BKND: jax.Array,
    segments_BL: jax.Array,
    is_local: jax.Array,
    keys_BN2: jax.Array | None = None,
) -> jax.Array:
    """`kernel` by each device on its own rows and heads: the compiler cannot split what it does not see into."""
    mesh = jax.sharding.get_abstract_mesh()
    operands = (q_BQND, k_BKND, v_BKND, segments_BL, is_local) + (() if keys_BN2 is None else (keys_BN2,))
    if mesh.empty:
        return kernel(*operands)
    heads = spec(("rows", "length", "heads", "head_dim"), q_BQND.shape, mesh)
    rows = spec(("rows", "length"), segments_BL.shape, mesh)
    # Without the check, since a Pallas kernel does not say over which mesh axes its output varies.
    same = spec((), (), mesh)
    specs = [heads, heads, heads, rows, same]
    if keys_BN2 is not None:
        specs.append(spec(("rows", "heads", "pair"), keys_BN2.shape, mesh))
    axes = free_axes(mesh)
    return jax.shard_map(kernel, in_specs=tuple(specs), out_specs=heads, axis_names=axes, check_vma=False)(*operands)
