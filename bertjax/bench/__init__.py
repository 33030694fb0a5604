"""What a run will cost and what it will see: numbers from shapes, times on this machine, reports on a data set.

survey      what a text holds, before anything is made of it
estimate    how long a run takes on a machine, and how much memory, by counting
info        what a run costs: parameters, FLOPs, memory, hours
memory      what training takes of this machine, and the largest batch that fits
probe       how long a step takes here, in seconds
step        a training step on synthetic rows
pipeline    the input pipeline on one core
encode      a trained model on texts and on full rows
torch_peer  the torch models that `step` and `encode` take turns with
report      what a data set holds and what looks wrong; `report_page` shows it, `spelled` its first examples
compare     trained models side by side: size, work, speed, held-out loss, and what they reached on tasks
retained    that last: the results of fine-tuned runs, and the share retained

Imports everything below: `config`, `batch`, `data`, `model`, `parallel`, `train`, `huggingface`, `trained`, `tasks`.
"""
