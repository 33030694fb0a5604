"""What a run will cost and how fast it is: numbers from shapes, times on this machine, models side by side.

estimate    how long a run takes on a machine, and how much memory, by counting
info        what a run costs: parameters, FLOPs, memory, hours
memory      what training takes of this machine, and the largest batch that fits
made        a training step that can be called by itself
probe       how long a step takes here, in seconds
step        a training step, by itself or in turn with a peer; `own_step` is its side, `turns` lets sides take turns
saving      what a save costs a run
pipeline    the input pipeline on one core
encode      a trained model on texts and on full rows
torch_peer  the torch models that `step` and `encode` take turns with
compare     trained models side by side: size, work, speed, held-out loss, and what they reached on tasks
retained    that last: the results of fine-tuned runs, and the share retained

Imports everything below: `config`, `batch`, `data`, `model`, `parallel`, `train`, `huggingface`, `trained`, `tasks`.
"""
