"""How long a run takes on a machine, and how much memory: counted from its numbers, without running or compiling it.

The speeds behind it are of few machines (docs/results.md), and of a GPU or TPU none at all: they choose a size, and
they are no promise.
"""

from bertjax.config.schema import Config
from bertjax.model.cost import flops_per_token, peak_tflops, predicted_share, training_bytes
from bertjax.parallel.machine import Machine

CORE = 28e9
"""Model FLOPs a second of each of two CPU cores, in float32 and at width 128."""
UTILISATION = 0.2
"""Share of the peak of a GPU or TPU at width 768 and above, in bfloat16."""
_UNKNOWN_TFLOPS = 50.0  # the peak of a device that the table does not have


def step_flops(config: Config) -> float:
    """Model FLOPs of an update: those of the tokens of full rows, and what Muon takes for its orthogonal updates."""
    m, d = config.model, config.data
    tokens = d.batch_size * d.seq_len * flops_per_token(m, d.seq_len, predicted=predicted_share(d))["total"]
    # Of an n x m matrix, n <= m, each of the five iterations takes 4 n^2 m + 2 n^3.
    one = 20 * m.hidden_size**2 * (4 * m.hidden_size + (3 if m.ffn == "gated" else 2) * m.ffn_size)
    one += 10 * m.hidden_size**3 * (4 + (3 if m.ffn == "gated" else 2))
    return tokens + (one * (m.copies + m.apart) if config.optim.name == "muon" else 0.0)


def flops_a_second(config: Config, machine: Machine) -> float:
    """Model FLOPs a second in training. Wider products use a device better, and further cores are used less."""
    width = config.model.hidden_size
    if machine.platform == "cpu":
        return 2 * CORE * (machine.cores / 2) ** 0.75 * (width / 128) ** 0.25
    peak = peak_tflops(machine.kind, config.run.peak_tflops) or _UNKNOWN_TFLOPS
    peak *= 1.0 if config.compute.dtype == "bfloat16" else 0.125
    return 1e12 * peak * UTILISATION * min(1.0, width / 768) * machine.devices


def step_bytes(config: Config, devices: int) -> float:
    """The most memory that a step takes on each of so many devices, with the rows of a microbatch split over them."""
    rows = -(-config.data.batch_size // (config.optim.accumulate * devices))
    number = 2 if config.compute.dtype == "bfloat16" else 4
    d = config.data
    return training_bytes(
        config.model, rows=rows, seq_len=d.seq_len, predictions=d.max_predictions, bytes_of_number=number
    )
