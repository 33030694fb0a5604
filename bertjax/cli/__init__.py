"""`bertjax COMMAND`: from the command line to one call of the package, and from an error to a line and an exit code.

main       which command, the help, exit codes
commands   the table of commands: help, and what each takes
actions    what each of them does
listing    what `bertjax config` shows
requests   what `bertjax predict` asks, from its arguments or standard input
answers    what it gets, as JSON and for a person
output     results on standard output, texts from standard input
arguments  the command line -> the values of those flags, and every mistake in it
overrides  a recipe, or the config of a run, with what the command line changes in it

Imports everything, and only inside the functions that run: `bertjax --help` must be quick.
"""
