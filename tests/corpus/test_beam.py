"""Apache Beam as a runner. What needs Beam itself is run by .ci/run, in Beam's own environment."""

import importlib.util

import pytest

from bertjax.cli import main as cli
from bertjax.config.schema import DataConfig
from bertjax.corpus import beam, prepare
from bertjax.errors import ConfigError, DataError

INSTALLED = importlib.util.find_spec("apache_beam") is not None


@pytest.mark.skipif(INSTALLED, reason="Apache Beam is installed here")
def test_without_beam_the_launcher_is_named():
    with pytest.raises(ConfigError, match=r"launch/beam\.sh prepare --runner=beam"):
        beam.runner([])


def test_the_built_in_corpus_is_refused(tmp_path, capsys):
    """It is the documentation of the installed packages: other text in Beam's environment."""
    with pytest.raises(SystemExit) as caught:
        cli.main(["prepare", "--runner=beam", "--config=configs/quickstart.py", f"--workdir={tmp_path}"])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "data.source = ('builtin',)" in line


@pytest.mark.parametrize("error", [DataError("corpus.txt: damaged"), None])
def test_a_unit_tells_its_error_by_a_file(tmp_path, monkeypatch, error):
    def work(folder, number):
        if error:
            raise error

    monkeypatch.setattr(prepare, "work", work)
    beam.work(tmp_path, 3)
    assert beam.error_file(tmp_path, 3).exists() == (error is not None)


@pytest.mark.skipif(not INSTALLED, reason="Apache Beam lives in an environment of its own (launch/beam.sh)")
def test_beam_makes_the_same_files(tmp_path):
    (tmp_path / "corpus.txt").write_text("".join(f"the cat {i}.\n\n" for i in range(500)))
    (tmp_path / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "."]) + "\n"
    )
    data = DataConfig(source=(str(tmp_path / "corpus.txt"),), holdout=0.1)
    for name, runner in (("local", prepare.local(1)), ("beam", beam.runner([]))):
        prepare.prepare(data, tmp_path / "vocab.txt", tmp_path / name, runner=runner)
    local, other = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("local", "beam"))
    assert local == other
