"""What things cost: in numbers from shapes, and timed on this machine, alone or against a peer.

info        parameters, FLOPs and memory of a config, before it runs
step        a training step on synthetic rows
pipeline    the input pipeline on one core
encode      a trained model on texts and on full rows
torch_peer  the torch models that `step` and `encode` take turns with
compare     trained models side by side: size, work, speed, held-out loss

Imports everything below: `config`, `batch`, `data`, `model`, `parallel`, `train`, `huggingface`, `trained`, `tasks`.
"""
