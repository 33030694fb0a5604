"""Where arrays live and who decides: the mesh and the one table from logical axes to mesh axes.

machine     the devices there are, their memory, the processor's cores
sharding    the only file that names a PartitionSpec

Imports `config` and `errors`.
"""
