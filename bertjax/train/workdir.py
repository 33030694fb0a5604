"""The directory of one run: where its files are, its config, and what of that may change when it goes on.

config.json      the resolved config; data, never executed
tokenizer/       unless data.tokenizer names another
data/            the prepared data set, unless data.prepared names another
checkpoints/     STEP/ by Orbax
metrics.jsonl    one object a line
curves.png       drawn from it
"""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from bertjax import storage
from bertjax.config.limits import limits
from bertjax.config.recipe import from_dict, to_dict, to_json
from bertjax.config.schema import Config, DataConfig
from bertjax.errors import ConfigError

CONFIG = "config.json"


def tokenizer_path(workdir: Path, data: DataConfig) -> Path:
    """The tokenizer file of this run."""
    trained = {"sentencepiece": "spiece.model", "wordpiece": "vocab.txt"}[data.tokenizer_kind]
    own = workdir / "tokenizer" / ("tokenizer.json" if data.by_rule else trained)
    return Path(data.tokenizer).expanduser() if data.tokenizer else own


def prepared_path(workdir: Path, data: DataConfig) -> Path:
    """The prepared data set of this run."""
    return Path(data.prepared).expanduser() if data.prepared else workdir / "data"


def load_config(workdir: Path) -> Config:
    """The config that a run in `workdir` was started with. Raises ConfigError if there is none, or it is damaged."""
    try:
        values = json.loads((workdir / CONFIG).read_text())
    except FileNotFoundError:
        raise ConfigError(f"{workdir / CONFIG}: not found; name a recipe with --config, or another --workdir") from None
    except ValueError as error:
        raise ConfigError(f"{workdir / CONFIG}: is not JSON ({error}); restore it, or name another --workdir") from None
    try:
        return from_dict(values)
    except ConfigError as error:
        raise ConfigError("\n".join(f"{workdir / CONFIG}: {line}" for line in str(error).splitlines())) from None


def save_config(workdir: Path, config: Config) -> None:
    """Write the resolved config, whole or not at all."""
    storage.write(workdir / CONFIG, to_json(config))


def check_same_run(workdir: Path, saved: dict[str, Any], config: Config, *, sections: Collection[str] = ()) -> None:
    """Raise ConfigError listing the fields, of these sections or of all, that a run cannot change half-way.

    `saved` is a config as JSON has it. What a field may do is said where it is (`bertjax.config.schema`).
    """
    errors = []
    for section, name, before, now in changes(saved, config):
        if (section in sections or not sections) and not limits(getattr(config, section))[name].may_change:
            errors.append(
                f"{section}.{name} = {now!r}: the run in {workdir} has {before!r}; restore it, or start anew in"
                " another --workdir"
            )
    if errors:
        raise ConfigError("\n".join(errors))


def changes(saved: dict[str, Any], config: Config) -> list[tuple[str, str, Any, Any]]:
    """Section, name, value in `saved` and value in `config` of each field that differs; what is not saved does not."""
    return [
        (section, name, saved[section][name], now)
        for section, fields in to_dict(config).items()
        for name, now in fields.items()
        if section in saved and name in saved[section] and saved[section][name] != now
    ]
