"""Where the time of a training step goes: by operation of the compiled program, by kind, by place in the model.

trace       what JAX's profiler saw of a program -> seconds by operation
report      the table of a step that is run and traced here, or of one for a machine that is not here, by estimate
shown       the table as text and as a picture

Imports `config`, `ahead`, `bench` and `tasks`.
"""
