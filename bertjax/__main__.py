"""`bertjax COMMAND` and `python -m bertjax COMMAND`: what signals mean, before anything is imported that takes time."""

import sys

from bertjax import signals
from bertjax.console import attach, say

GOES_ON = ("pretrain", "finetune")
"""Commands that go on where they were stopped: asked to stop, they end with PREEMPTED, and the others by the signal."""


def main() -> None:
    """Entry point: runs the command that `sys.argv` names, and exits."""
    attach()
    if sys.argv[1:] and sys.argv[1] in GOES_ON:
        signals.end_at_once()
    try:
        from bertjax.cli.main import main as run  # here: it takes longer than Python's own start

        run()
    except KeyboardInterrupt:
        say("bertjax: interrupted")
        sys.exit(130)


if __name__ == "__main__":
    main()
