"""The engine: it trains whatever `Task` it is given, and names no task, model or teacher.

task         what a run is for, as a value
objective    terms of a loss, and how their items are summed
optim        optimizers as optax chains
schedule     the rate by step; the numbers in which runs of one compiled step differ
state        everything that training changes, and its birth
step         the jitted update and evaluation
loop         the training loop, on one page
session      a run in its work directory: locked, resumed or begun, trained, drawn
recorder     metrics on their way from the device to the log, one step late; rates
metrics      metrics.jsonl and TensorBoard
curves       the learning curves as a picture
checkpoint   Orbax behind a thin interface: saved together, verified before use
workdir      where a run's files are, its config, what of it may change
guard        what is not finite is skipped, and never saved, restored or reported

Imports `config`, `parallel`, `model`, `storage`, `progress`, `signals`. No host data: batches come from the task.
"""
