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


def test_a_phase_that_begins_is_drawn(tmp_path, drawn):
    mark = (2, {"phase": 2, "batch_size": 8, "seq_len": 512})
    write(tmp_path, [(1, {"mlm_loss": 6.0}), mark, (2, {"mlm_loss": 5.0, "mlm_accuracy": 0.1})])
    curves.plot(tmp_path)
    ((losses, accuracies),) = drawn
    assert losses == accuracies == ["mlm, training", "phase 2 begins"]


def test_a_run_without_a_line_has_a_picture_too(tmp_path, drawn):
    write(tmp_path, [])
    assert curves.plot(tmp_path).exists() and drawn == [[[], []]]


def test_metrics_of_labels_stand_beside_the_loss(tmp_path, drawn):
    training = [(s, {"loss": 1.0, "label_loss": 1.0 / s, "label_accuracy": 0.2 * s}) for s in (1, 2, 3, 4)]
    dev = [(s, {"dev_loss": 1.0, "dev_f1": 0.1 * s * (4 - s), "dev_accuracy": 0.5}) for s in (1, 2, 3)]
    write(tmp_path, [*training, *dev])
    curves.plot(tmp_path, chosen="dev_f1")
    ((losses, shares),) = drawn
    assert losses[:2] == ["label, training", "dev loss"]
    assert shares == ["label, training", "dev f1", "dev accuracy", "best: 0.4 at step 2"]
    curves.plot(tmp_path)
    assert drawn[1] == [["label, training", "dev loss"], ["label, training", "dev f1", "dev accuracy"]]


def test_errors_are_drawn_with_the_loss_and_correlations_below_zero_are_seen(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", lambda figure, *args, **options: figures.append(figure))
    write(tmp_path, [(1, {"dev_mse": 7.0, "dev_pearson": -0.13}), (2, {"dev_mse": 5.0, "dev_pearson": 0.5})])
    curves.plot(tmp_path, chosen="dev_pearson")
    errors, shares = figures[0].axes
    assert [list(line.get_ydata()) for line in errors.lines[:1]] == [[7.0, 5.0]]
    assert list(shares.lines[0].get_ydata()) == [-0.13, 0.5]
    assert shares.get_ylim() == (-0.2, 1.0)
    assert errors.lines[-1].get_xdata() == [2, 2] and shares.lines[-1].get_xdata() == [2, 2]


def test_the_first_of_the_best_steps_is_marked(tmp_path, drawn):
    write(tmp_path, [(step, {"dev_f1": value}) for step, value in ((1, 0.1), (2, 0.9), (3, 0.9), (4, None))])
    curves.plot(tmp_path, chosen="dev_f1")
    assert drawn[0][1][-1] == "best: 0.9 at step 2"
