"""`bertjax.train.signals`: a run is asked once to stop, and what was there before is there again."""

import os
import signal

import pytest

from bertjax.train import signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_only_noted(number):
    before = signal.getsignal(number)
    with signals.noted() as asked:
        assert not asked()
        os.kill(os.getpid(), number)
        assert asked()
    assert signal.getsignal(number) is before


def test_a_second_interrupt_interrupts():
    with signals.noted() as asked:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert asked()
