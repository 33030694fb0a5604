"""The errors that a user can cause, and the exit code of each.

The command line prints such an error as one line and exits with its code; any other exception is a bug in bertjax
and shows its traceback. A message names the thing (field, file), its value and the fix.
"""


class UserError(Exception):
    """Something the user can mend: one line, an exit code, no traceback."""

    exit_code = 2


class ConfigError(UserError):
    """A configuration, flag or command line that cannot work."""


class DataError(UserError):
    """A corpus, tokenizer or prepared data set that is missing, damaged or of the wrong kind."""

    exit_code = 3


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged or of another model."""

    exit_code = 4


class NumericError(UserError):
    """A loss, gradient or parameter that is no longer a number."""

    exit_code = 5


class WorkerError(UserError):
    """A process that works for this one, and has died or gives nothing."""

    exit_code = 6


class PeerError(WorkerError):
    """Another process of the same run that has died, or failed, or does not answer."""


class StorageError(UserError):
    """A directory that cannot be written, or that another job holds."""

    exit_code = 7


class OutOfMemory(UserError):
    """Work that does not fit into the memory of the devices or of the machine."""

    exit_code = 8


def memory_ran_out(error: BaseException) -> bool:
    """Whether this is how Python, NumPy or XLA say that there is no memory left; named by what XLA's errors say, since
    most of what calls this must not import it.
    """
    of_xla = type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError")
    text = str(error).lower()
    return isinstance(error, MemoryError) or (of_xla and ("resource_exhausted" in text or "out of memory" in text))


def peer_is_gone(error: BaseException) -> bool:
    """Whether this is how JAX says that another process of the run has gone or does not answer."""
    of_jax = type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError")
    signs = ("gloo", "nccl", "connection", "coordination", "barrier", "heartbeat", "unavailable", "deadline_exceeded")
    return of_jax and any(sign in str(error).lower() for sign in signs)


PREEMPTED = 75
"""Exit code of a run that was asked to stop (SIGTERM, SIGHUP, Ctrl-C) and saved: to be started again."""


def one_line(problem: object) -> str:
    """The text of an error of another library as part of a message: without line breaks, at most 200 characters."""
    return printable(" ".join(str(problem).split())[:200]) or type(problem).__name__


def printable(text: str) -> str:
    """A text that somebody else wrote, as a terminal can take it: what would move its cursor is shown as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
