"""`bertjax.train.curves`: every term that a run was trained on or measured by is drawn."""

import matplotlib.figure
import pytest

from bertjax.train import curves, metrics


@pytest.fixture
def drawn(monkeypatch):
    """The labels of the lines of the pictures that are made."""
    labels = []
    save = matplotlib.figure.Figure.savefig

    def note(figure, *args, **options):
        labels.append([[line.get_label() for line in axis.lines] for axis in figure.axes])
        save(figure, *args, **options)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", note)
    return labels


def write(directory, lines):
    writer = metrics.Writer(directory, start_step=0, tensorboard=False)
    for step, values in lines:
        writer.write(step, values)
    writer.close()


def test_every_term_is_drawn(tmp_path, drawn):
    training = [(s, {"loss": 9.0, "mlm_loss": 6.0 / s, "mlm_accuracy": 0.1 * s, "soft_loss": 1.0}) for s in (1, 2, 3)]
    write(tmp_path, [*training, (3, {"eval_mlm_loss": 2.0, "eval_mlm_accuracy": 0.3, "eval_unigram_loss": 5.0})])
    picture = curves.plot(tmp_path)
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    ((losses, accuracies),) = drawn
    assert losses == ["mlm, training", "mlm, held-out", "soft, training", "unigram, held-out"]
    assert accuracies == ["mlm, training", "mlm, held-out"]


def test_a_run_without_a_line_has_a_picture_too(tmp_path, drawn):
    write(tmp_path, [])
    assert curves.plot(tmp_path).exists() and drawn == [[[], []]]
