"""A tokenizer file that nobody has tried is read and used in a process of its own first.

The libraries that read it are native code: a damaged file may end the process, raise what is no Exception, take all
memory or never return, at once or at the first word with a certain character. Here that happens to a child, which
reads the file and encodes each character of Unicode. It takes half a second, and is spared where the SHA-256 of the
file is that of one which was tried: in this process, or before a data set or a checkpoint was made with it.
"""

import contextlib
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bertjax.data import tokenizer as tokenizers
from bertjax.data.tokenizer import Tokenizer
from bertjax.errors import DataError, one_line

SECONDS = 15  # of CPU; a vocabulary of 250,000 pieces takes 3
DEADLINE = 25  # seconds by the clock
MEMORY = 4 * 2**30  # bytes of address space
TOGETHER = 64  # characters in a text

_tried: set[tuple[str, str, bool | None]] = set()
_CHILD = f"import json, sys; sys.path, *told = json.loads(sys.argv[1]); from {__name__} import main; main(*told)"
_CALM = {"TOKENIZERS_PARALLELISM": "false", "OPENBLAS_NUM_THREADS": "1", "RUST_BACKTRACE": "0"}


def load(path: str | Path, *, lower_case: bool | None, known: str = "") -> Tokenizer:
    """The tokenizer of a file, tried unless its SHA-256 is `known`, which the caller has from where it was used before.

    Raises DataError as `bertjax.data.tokenizer.load` does, and for a file that does not come through the trial.
    """
    return parse(path, tokenizers.contents(path), lower_case=lower_case, known=known)


def parse(path: str | Path, content: bytes, *, lower_case: bool | None, known: str = "") -> Tokenizer:
    """As `load`, of a file with this content."""
    digest = hashlib.sha256(content).hexdigest()
    this = digest, Path(path).suffix, lower_case
    if digest != known and this not in _tried:
        if problem := _tried_out(path, content, lower_case):
            raise DataError(problem)
        _tried.add(this)
    return tokenizers.parse(path, content, lower_case=lower_case)


def _tried_out(path: str | Path, content: bytes, lower_case: bool | None) -> str:
    """What is wrong with a file; "" if nothing."""
    told = json.dumps([list(map(str, sys.path)), str(path), lower_case, SECONDS], allow_nan=False)
    command = [sys.executable or "python3", "-I", "-W", "ignore", "-c", _CHILD, told]
    environment = os.environ | _CALM
    try:
        child = subprocess.run(command, input=content, capture_output=True, env=environment, timeout=DEADLINE)
    except OSError as error:
        return _unusable(path, f"no process can be started to try it: {error.strerror}")
    except subprocess.TimeoutExpired:
        return _unusable(path, f"not done in {DEADLINE} s")
    if child.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return _unusable(path, f"not done in {SECONDS} s, or out of memory")
    try:
        (problem,) = json.loads(child.stdout.splitlines()[-1])
        return str(problem)
    except (ValueError, TypeError, IndexError):
        code, said = child.returncode, child.stderr[-200:].decode(errors="replace")
        ended = signal.Signals(-code).name if code < 0 else f"exit code {code}, {one_line(said)}"
        return _unusable(path, f"it ends the process that reads it: {ended}")


def _unusable(path: str | Path, problem: str) -> str:
    return f"data.tokenizer = {str(path)!r}: cannot be used ({problem}); copy it again, or name another"


# In the child --------------------------------------------------------------------------------------------------------


def main(path: str, lower_case: bool | None, seconds: int) -> None:
    """Try the file on standard input, and print what is wrong with it as a line of JSON, [TEXT]."""
    for what, most in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):  # a system that has it otherwise, or a lower limit already
            resource.setrlimit(what, (most, most))
    try:
        problem = _use(tokenizers.parse(path, sys.stdin.buffer.read(), lower_case=lower_case))
    except DataError as error:
        print(json.dumps([str(error)], allow_nan=False))
        return
    except BaseException as error:  # a panic of Rust is no Exception
        problem = f"{type(error).__name__}: {one_line(error)}"
    print(json.dumps([problem and _unusable(path, problem)], allow_nan=False))


def _use(tokenizer: Tokenizer) -> str:
    """What is wrong with the ids that a tokenizer gives; "" if nothing. Raises whatever its library does."""
    ids_n, _ = tokenizer.encode_batch(list(_texts()))
    if ids_n.size and not 0 <= ids_n.min() <= ids_n.max() < tokenizer.vocab_size:
        return f"it gives ids from {ids_n.min()} to {ids_n.max()}, and has {tokenizer.vocab_size} pieces"
    tokenizer.decode(np.arange(tokenizer.vocab_size))
    return ""


def _texts() -> Iterator[str]:
    """Each character to which Unicode gives a meaning; no text, white space, a long word."""
    yield from ("", " ", "a" * 1000, "The cat sat on the mat, 2020.")
    characters = map(chr, [*range(0x34000), *range(0xE0000, 0xE0200)])  # there are none elsewhere
    meant = [c for c in characters if unicodedata.category(c) not in ("Cs", "Cn", "Co")]
    for start in range(0, len(meant), TOGETHER):
        yield " ".join(meant[start : start + TOGETHER])
