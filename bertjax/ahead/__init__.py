"""A training step compiled for machines that are not here, and what its program says about a run there.

compile     the step compiled for a machine: whether it fits, what it sends, how long it is estimated to take
search      the same for several meshes, rows at a time and remat
hlo         the text of a compiled program -> its instructions, and how often each is executed
operations  of which kind an operation is, and where in the model it is from
traffic     what a program moves: through memory, and from chip to chip
roofline    how long its instructions take: by the compiler where it tells, else by what they move and multiply
shown       the report as text and as a picture

Imports `config`, `batch`, `model`, `parallel`, `train` and `tasks`.
"""
