"""What a run depends on: the one schema, the rules between its fields, and recipes that become a `Config`.

limits       what a field says of itself: meaning, limits, whether a run may change it
schema       frozen dataclasses: each field with its default and those
data_fields  the longest of them
task_fields  those of fine-tuning
phases       stretches of a run, and the config of each
rules        what fields must satisfy, alone by their limits and with each other
made         what is made of which fields before a run begins
structure    what several recipes say of a model
recipe       `default()` for recipes to change, `from_dict` back from them or from saved JSON

Imports `errors` and nothing else of the package. No JAX: `bertjax --help` must be quick.
"""
