"""Where arrays live and who decides: the mesh and the one table from logical axes to mesh axes.

machine     the devices there are, their memory, the processor's cores
sharding    the only file that names a PartitionSpec
reduction   what data shards compute by themselves, and its one sum over them
launched    what a launcher tells a process: of how many it is one
distributed several processes that are one run: their start, and what they decide together
lost        the end of a process when another one of its run is gone
watchdog    ends a run that hangs
topology    machines that are not here, to compile for
memory      what is free, what a compiled program takes, the most rows that fit

Imports `config` and `errors`.
"""
