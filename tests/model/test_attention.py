"""`bertjax.model.attention`: every backend against plain loops and the reference, on padded and packed rows."""

import functools
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import AbstractDevice, AbstractMesh, AxisType
from small import random_batch, shapes_of_state, tiny, train_step_of

from bertjax import batch
from bertjax.config.schema import ComputeConfig, Config
from bertjax.errors import ConfigError
from bertjax.model import attention
from bertjax.model.attention import attend, check, choose
from bertjax.model.network import abstract_params, apply
from bertjax.parallel import sharding

plain = functools.partial(attend, dropout_rate=0.0, key=None)
EVERYWHERE = jnp.array(False)


def interpreted_splash(q, k, v, segments, *, window=0, is_local=EVERYWHERE):
    return attention._splash(window, q, k, v, segments, is_local, interpret=True)


def interpreted_flash(q, k, v, segments, *, platform="gpu", window=0, is_local=EVERYWHERE, rate=0.0, key=None):
    keys_BN2 = None if key is None else attention._head_keys(key, q.shape[0], q.shape[2])
    segments = jnp.asarray(segments)
    return attention._flash(window, rate, q, k, v, segments, is_local, keys_BN2, platform=platform)


BACKENDS = {
    "reference": functools.partial(plain, backend="reference"),
    "xla": functools.partial(plain, backend="xla"),
    "splash": interpreted_splash,
    "flash": interpreted_flash,
    "flash on TPU": functools.partial(interpreted_flash, platform="tpu"),
}
"""Those that a CPU can compute."""

ONE_BLOCK, MANY_BLOCKS = (4, 256, 2, 64), (4, 640, 1, 24)
"""[B, L, N, D] of a row that splash takes at once, and of one in 5 x 5 blocks."""


def make_rows(shape, dtype=np.float32, seed=0):
    """q, k, v, a cotangent and segments: padded, packed and padded, packed without padding, full; and so on."""
    rng = np.random.default_rng(seed)
    B, L, _, _ = shape
    arrays = [jnp.asarray(rng.normal(size=shape), dtype) for _ in range(4)]
    segments = np.zeros((B, L), np.int32)
    for b in range(B):
        ends = [(0.8,), (0.3, 0.7, 0.9), (0.25, 0.6, 1.0), (1.0,)][b % 4]
        for number, end in reversed(list(enumerate(ends, start=1))):
            segments[b, : round(end * L)] = number
    return *arrays, segments


def outputs_and_gradients(backend, q, k, v, cotangent, segments):
    out, pull = jax.vjp(lambda q, k, v: backend(q, k, v, segments), q, k, v)
    return out, *pull(cotangent.astype(out.dtype))


@pytest.mark.parametrize("name", BACKENDS)
def test_equals_a_loop_over_the_tokens_of_each_example(name):
    q, k, v, _, segments = make_rows((2, 128, 2, 4))
    out = np.asarray(jax.jit(BACKENDS[name])(q, k, v, segments))
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    for b, i, n in np.ndindex(2, 128, 2):
        seen = np.flatnonzero(segments[b] == segments[b, i])
        weight = np.exp(k[b, seen, n] @ q[b, i, n] / 2.0)
        np.testing.assert_allclose(out[b, i, n], weight @ v[b, seen, n] / weight.sum(), atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", BACKENDS)
def test_a_local_layer_sees_a_window_and_a_global_one_does_not(name):
    """Which of the two a layer is comes as data; in packed rows the window ends where the example does."""
    shape, window = (2, 256, 1, 4), 20
    q, k, v, cotangent, segments = make_rows(shape)

    @jax.jit
    def run(is_local):
        backend = functools.partial(BACKENDS[name], window=window, is_local=is_local)
        return outputs_and_gradients(backend, q, k, v, cotangent, segments)

    plainly = outputs_and_gradients(BACKENDS[name], q, k, v, cotangent, segments)
    for a, b in zip(run(jnp.array(False)), plainly, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6, rtol=0)
    out, _, k_gradient, _ = run(jnp.array(True))
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    places = np.arange(256)
    for b, i in np.ndindex(2, 256):
        seen = np.flatnonzero((segments[b] == segments[b, i]) & (np.abs(places - i) <= window))
        weight = np.exp(k[b, seen, 0] @ q[b, i, 0] / 2.0)
        np.testing.assert_allclose(out[b, i, 0], weight @ v[b, seen, 0] / weight.sum(), atol=2e-6, rtol=0)
    assert np.isfinite(k_gradient).all()


@pytest.mark.parametrize(
    ("shape", "dtype", "tolerance"),
    [(ONE_BLOCK, "float32", 5e-6), (MANY_BLOCKS, "float32", 5e-6), (MANY_BLOCKS, "bfloat16", 0.02)],
)
@pytest.mark.parametrize("name", ["xla", "splash"])
def test_outputs_and_gradients_equal_the_reference(name, shape, dtype, tolerance):
    """Half precision is compared with the single-precision reference of the same numbers."""

    @jax.jit
    def both(q, k, v, cotangent, segments):
        exact = outputs_and_gradients(
            BACKENDS["reference"], *(x.astype(jnp.float32) for x in (q, k, v, cotangent)), segments
        )
        return exact, outputs_and_gradients(BACKENDS[name], q, k, v, cotangent, segments)

    exact, actual = both(*make_rows(shape, dtype))
    for a, b in zip(actual, exact, strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a.astype(np.float32), b, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", BACKENDS)
def test_padding_and_neighbours_change_nothing(name):
    """Bitwise: outputs of an example, and its gradients, whatever stands in the other examples and the padding."""
    shape = (4, 256, 2, 8)
    *arrays, cotangent, segments = make_rows(shape)
    mine = (segments == 1)[:, :, None, None]
    cotangent = jnp.where(mine, cotangent, 0.0)
    others = [jnp.where(mine, x, 100 * y) for x, y in zip(arrays, make_rows(shape, seed=1)[:3], strict=True)]
    run = jax.jit(functools.partial(outputs_and_gradients, BACKENDS[name]))
    before, after = run(*arrays, cotangent, segments), run(*others, cotangent, segments)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(np.where(mine, a, 0.0), np.where(mine, b, 0.0))
    for gradient in (*before[1:], *after[1:]):
        assert not np.where(mine, 0.0, gradient).any()


def test_dropout_is_on_the_probabilities():
    """With equal scores and values of 1, an output is the share of the probabilities that was kept."""
    ones, segments = np.ones((1, 64, 1, 4), np.float32), np.ones((1, 64), np.int32)
    key = jax.random.key(0)
    drop = functools.partial(attend, dropout_rate=0.5, backend="auto")
    out = np.asarray(jax.jit(drop)(ones, ones, ones, segments, key=key))
    np.testing.assert_allclose(out.mean(), 1.0, atol=0.1)
    kept = out[0, :, 0, 0] * 32
    np.testing.assert_allclose(kept, np.round(kept), atol=1e-3)
    assert out.std() > 0.05


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_flash_drops_what_the_reference_drops(platform):
    q, k, v, cotangent, segments = make_rows((2, 128, 2, 16))
    options = {"key": jax.random.key(7), "rate": 0.3}

    def reference(q, k, v, segments):
        return attend(q, k, v, segments, dropout_rate=options["rate"], key=options["key"], backend="reference")

    flash = functools.partial(interpreted_flash, platform=platform, **options)
    both = [
        jax.jit(functools.partial(outputs_and_gradients, f))(q, k, v, cotangent, segments) for f in (flash, reference)
    ]
    for a, b in zip(*both, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6, rtol=0)


@pytest.mark.parametrize("shape", [{"data": 2, "fsdp": 2, "tensor": 2}, {"data": 1, "fsdp": 8, "tensor": 1}])
def test_a_mesh_of_any_shape_drops_the_same(shape):
    """Each device has the bits of its own rows and heads: 8 times the first ones would be 8 times the same rows."""
    ones, segments = jnp.ones((8, 64, 2, 16)), jnp.ones((8, 64), jnp.int32)
    key = jax.random.key(1)
    flash = functools.partial(attention._flash, 0, 0.5, platform="gpu")

    def split(x, segments):
        x = sharding.constrain(x, "rows", "length", "heads", "head_dim")
        return attention._on_each_device(flash, x, x, x, segments, EVERYWHERE, attention._head_keys(key, 8, 2))

    expected = attend(ones, ones, ones, segments, dropout_rate=0.5, key=key, backend="reference")
    with jax.set_mesh(sharding.make_mesh(tiny(mesh=shape).mesh)):
        actual = jax.jit(split)(ones, segments)
    np.testing.assert_allclose(actual, expected, atol=1e-6, rtol=0)
    assert len(np.unique(np.asarray(expected)[:, :, :, 0].swapaxes(1, 2).reshape(16, 64), axis=0)) == 16
    assert actual.sharding.shard_shape(actual.shape)[0] == 8 // shape["data"] // shape["fsdp"]


@pytest.mark.parametrize("rows", [4, 1])
def test_each_device_computes_its_own_rows_and_heads(rows):
    """A kernel under a mesh, and one row (as at initialisation), which no axis divides."""
    mesh = sharding.make_mesh(tiny(mesh={"data": 2, "fsdp": 2, "tensor": 2}).mesh)
    *arrays, segments = make_rows((rows, 128, 2, 8))
    splash = functools.partial(attention._splash, 0, interpret=True)

    def split(q, k, v, segments):
        q, k, v = (sharding.constrain(x, "rows", "length", "heads", "head_dim") for x in (q, k, v))
        return attention._on_each_device(splash, q, k, v, segments, EVERYWHERE)

    expected = jax.jit(functools.partial(outputs_and_gradients, BACKENDS["reference"]))(*arrays, segments)
    with jax.set_mesh(mesh):
        actual = jax.jit(functools.partial(outputs_and_gradients, split))(*arrays, segments)
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=5e-6, rtol=0)
    assert actual[0].sharding.shard_shape(actual[0].shape) == (1, 128, 1, 8)


@pytest.mark.parametrize(
    ("case", "backend"),
    [
        (("cpu", "float32", 512, 64, False), "reference"),
        (("cpu", "bfloat16", 512, 64, True), "reference"),
        (("gpu", "bfloat16", 512, 64, False), "cudnn"),
        (("gpu", "bfloat16", 128, 128, False), "cudnn"),
        (("gpu", "bfloat16", 512, 64, True), "reference"),
        (("gpu", "float32", 512, 64, False), "xla"),
        (("gpu", "bfloat16", 192, 64, False), "xla"),  # an odd multiple of 64: NaN gradients with a mask
        (("gpu", "bfloat16", 512, 36, False), "xla"),
        (("gpu", "bfloat16", 512, 136, False), "xla"),
        (("tpu", "bfloat16", 512, 64, False), "splash"),
        (("tpu", "float32", 640, 20, False), "splash"),
        (("tpu", "bfloat16", 512, 64, True), "reference"),
        (("tpu", "bfloat16", 384, 64, False), "xla"),
        (("tpu", "bfloat16", 576, 64, False), "xla"),
    ],
)
def test_auto_is_the_rule_of_the_table(case, backend):
    assert choose(*case) == backend


@pytest.mark.parametrize(
    ("platform", "length", "expected"),
    [
        ("tpu", 512, {"splash_mha_fwd"}),
        ("tpu", 128, set()),
        ("gpu", 128, {"dot_product_attention_fwd", "bf16[4,1,128,128]"}),
        ("gpu", 96, set()),
    ],
)
def test_auto_asks_the_mesh_for_its_platform(monkeypatch, platform, length, expected):
    """Traced, not run. JAX's own checks for cuDNN pass, and its mask is one for all heads of a device's rows."""
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91000)
    device = AbstractDevice(device_kind="any", num_cores=1, platform=platform)
    x = jax.ShapeDtypeStruct((8, length, 4, 64), jnp.bfloat16)
    segments = jax.ShapeDtypeStruct((8, length), jnp.int32)
    types = (AxisType.Auto,) * 3
    mesh = AbstractMesh((2, 1, 2), sharding.AXES, abstract_device=device, axis_types=types)
    with jax.sharding.use_abstract_mesh(mesh):
        forward = functools.partial(plain, backend="auto")
        text = str(jax.make_jaxpr(functools.partial(outputs_and_gradients, forward))(x, x, x, x, segments))
    traced = set(re.findall("splash_mha_fwd|dot_product_attention_fwd|bf16\\[4,1,128,128\\]", text))
    assert traced == expected


@pytest.mark.parametrize(
    ("backend", "case", "words"),
    [
        ("xla", ("tpu", "bfloat16", 512, 64, True), ["dropout", "model.attention_dropout = 0.0"]),
        ("cudnn", ("gpu", "bfloat16", 512, 64, True), ["dropout"]),
        ("cudnn", ("cpu", "bfloat16", 512, 64, False), ["GPU", "not cpu"]),
        ("cudnn", ("gpu", "float32", 512, 64, False), ["compute.dtype = bfloat16, not float32"]),
        ("cudnn", ("gpu", "bfloat16", 192, 64, False), ["128, not 192"]),
        ("cudnn", ("gpu", "bfloat16", 512, 20, False), ["model.num_heads", "not 20"]),
        ("splash", ("tpu", "bfloat16", 512, 64, True), ["dropout"]),
        ("splash", ("gpu", "bfloat16", 512, 64, False), ["TPU", "not gpu"]),
        ("splash", ("tpu", "bfloat16", 320, 64, False), ["data.seq_len", "128, not 320"]),
        ("flash", ("cpu", "bfloat16", 512, 64, True), ["a GPU or a TPU", "not cpu"]),
        ("flash", ("tpu", "bfloat16", 192, 64, True), ["data.seq_len", "128, not 192"]),
        ("flash", ("tpu", "bfloat16", 4096, 64, True), ["at most 2048 in bfloat16, not 4096"]),
        ("flash", ("tpu", "float32", 2048, 64, True), ["at most 1024 in float32, not 2048"]),
        ("flash", ("gpu", "float32", 96, 64, True), ["data.seq_len", "64, not 96"]),
        ("flash", ("gpu", "bfloat16", 512, 160, False), ["at most 128, not 160"]),
    ],
)
def test_a_named_backend_that_cannot_serve_is_refused(backend, case, words):
    platform, dtype, length, head_dim, dropping = case
    config = tiny(
        model={"hidden_size": 4 * head_dim, "attention_dropout": 0.1 * dropping, "max_positions": 1024},
        compute={"attention": backend, "dtype": dtype},
    )
    with pytest.raises(ConfigError, match=f"^compute.attention = {backend}: needs ") as error:
        check(config.model, config.compute, (length, 1024), platform)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)
    assert str(error.value).count("; ") == 1, "more is refused than is wrong"


def test_what_can_serve_is_not_refused():
    for backend, platform in [("auto", "cpu"), ("reference", "tpu"), ("flash", "gpu")]:
        config = tiny(model={"attention_dropout": 0.1}, compute={"attention": backend})
        check(config.model, config.compute, (64 if backend == "flash" else 32,), platform)
    for backend, platform in [
        ("xla", "cpu"),
        ("xla", "gpu"),
        ("cudnn", "gpu"),
        ("splash", "tpu"),
        ("flash", "gpu"),
        ("flash", "tpu"),
    ]:
        config = tiny(model={"attention_dropout": 0.0}, compute={"attention": backend, "dtype": "bfloat16"})
        check(config.model, config.compute, (128,), platform)


def test_a_refusal_comes_before_anything_is_computed():
    q, k, v, _, segments = make_rows((1, 128, 1, 8), jnp.bfloat16)
    for backend in ("cudnn", "splash", "flash"):
        with pytest.raises(ConfigError, match="not cpu"):
            attend(q, k, v, segments, dropout_rate=0.1, key=None, backend=backend)
    attend(q, k, v, segments, dropout_rate=0.1, key=None, backend="xla")  # evaluation drops nothing
    with pytest.raises(ConfigError, match="dropout"):
        attend(q, k, v, segments, dropout_rate=0.1, key=jax.random.key(0), backend="xla")


def test_the_model_is_the_same_with_xla():
    config = tiny(model={"num_layers": 1})
    rows, rng = random_batch(config), np.random.default_rng(0)
    params = jax.tree.map(lambda x: 0.1 * rng.normal(size=x.shape).astype(np.float32), abstract_params(config.model))

    def outputs(params, backend):
        return apply(config.model, ComputeConfig(attention=backend, scan=False), params, rows)

    with pytest.raises(ConfigError, match="splash"):  # the model does ask for the backend of its config
        jax.eval_shape(functools.partial(outputs, backend="splash"), params)
    reference, xla = (jax.jit(outputs, static_argnums=1)(params, backend) for backend in ("reference", "xla"))
    for name in reference:
        np.testing.assert_allclose(reference[name], xla[name], atol=1e-5, rtol=0)


@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="needs libtpu, the compiler: pip install jax[tpu]")
@pytest.mark.parametrize(
    ("backend", "kernels", "operand"),
    [
        ("splash", ["splash_mha_fwd", "splash_mha_dkv"], "bf16[2,2,128,32]"),
        ("flash", ["flash_forward", "flash_backward"], "bf16[2,128,128]"),
    ],
)
def test_a_train_step_compiles_for_a_tpu_pod(monkeypatch, backend, kernels, operand):
    """An update with forward and backward kernels, compiled for 8 chips that are not here; each has its own 2 rows.

    With the dropout of BERT where the kernel has it. Two heads of 32 numbers are filled up to the four of a group.
    """
    for name in ("TPU_SKIP_MDS_QUERY", "ALLOW_MULTIPLE_LIBTPU_LOAD"):
        monkeypatch.setenv(name, "1")
    topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x4")
    sizes = {"hidden_size": 64, "embedding_size": 64, "num_heads": 2, "max_positions": 128}
    compute = {"dtype": "bfloat16", "attention": backend}
    config = tiny(
        model={**sizes, "attention_dropout": 0.1 * (backend == "flash")},
        compute=compute,
        data={"seq_len": 128, "batch_size": 16},
    )
    mesh = sharding.make_mesh(config.mesh, topology.devices)
    with jax.set_mesh(mesh):
        rows = {name: jax.ShapeDtypeStruct(f.shape, f.dtype) for name, f in batch.spec(config.data).items()}
        compiled = train_step_of(config, mesh).lower(shapes_of_state(config, mesh), rows).compile()
    calls = [line for line in compiled.as_text().splitlines() if 'custom_call_target="tpu_custom_call"' in line]
    assert len(calls) == 2 and all(name in call and operand in call for name, call in zip(kernels, calls, strict=True))


def cudnn_equals_the_reference():
    """On a GPU: outputs, gradients and exactness of padding, at the lengths and head sizes of the family."""
    assert jax.default_backend() == "gpu"
    for shape in [(4, 128, 2, 64), (4, 512, 12, 64), (2, 1024, 2, 128), (4, 256, 2, 32)]:
        *rows, segments = make_rows(shape, jnp.bfloat16)
        exact = jax.jit(functools.partial(outputs_and_gradients, BACKENDS["reference"]))
        cudnn = jax.jit(functools.partial(outputs_and_gradients, functools.partial(plain, backend="cudnn")))
        expected = exact(*(x.astype(jnp.float32) for x in rows), segments)
        for a, b in zip(cudnn(*rows, segments), expected, strict=True):
            np.testing.assert_allclose(np.asarray(a, np.float32), np.asarray(b), atol=0.03, rtol=0.02)
        mine = (segments == 1)[:, :, None, None]
        others = [
            jnp.where(mine, x, 100 * y) for x, y in zip(rows, make_rows(shape, jnp.bfloat16, 1)[:3], strict=False)
        ]
        outs = [cudnn(*some[:3], rows[3], segments)[0] for some in (rows, others)]
        np.testing.assert_array_equal(np.where(mine, outs[0], 0), np.where(mine, outs[1], 0))
    mesh = sharding.make_mesh(Config().mesh)
    with jax.set_mesh(mesh):
        sharded = cudnn(*rows, segments)
    np.testing.assert_array_equal(sharded[0], cudnn(*rows, segments)[0])


HAS_GPU = Path("/dev/nvidiactl").exists() and any(
    importlib.util.find_spec(f"jax_cuda{version}_plugin") for version in (12, 13)
)


@pytest.mark.skipif(not HAS_GPU, reason="needs an NVIDIA GPU and jax[cuda12] or jax[cuda13]")
def test_cudnn_equals_the_reference_on_a_gpu():
    """In a process of its own, since tests compute on CPU devices."""
    environment = {**os.environ, "JAX_PLATFORMS": "cuda", "XLA_FLAGS": "", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    subprocess.run([sys.executable, __file__], env=environment, check=True, timeout=600)


if __name__ == "__main__":
    cudnn_equals_the_reference()
