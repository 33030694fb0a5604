"""`bertjax.errors`: each kind has its own exit code, and the help and the documentation list them all."""

import re
from pathlib import Path

from bertjax import errors
from bertjax.cli.main import USAGE

KINDS = [
    errors.ConfigError,
    errors.DataError,
    errors.CheckpointError,
    errors.NumericError,
    errors.WorkerError,
    errors.StorageError,
    errors.OutOfMemory,
]


def test_exit_codes_are_distinct_and_documented():
    assert set(KINDS) == set(errors.UserError.__subclasses__())
    codes = [kind.exit_code for kind in KINDS] + [errors.PREEMPTED]
    assert len(set(codes)) == len(codes) and not {0, 1} & set(codes)
    page = (Path(__file__).parents[1] / "docs" / "training.md").read_text()
    documented = re.findall(r"^\| (\d+) \|", page, re.M)
    assert sorted(map(int, documented)) == sorted({0, *codes})
    for code in codes:
        assert f" {code} " in USAGE
