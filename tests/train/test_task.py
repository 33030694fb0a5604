"""`bertjax.train.task`: the engine trains whatever it is given."""

import toy

from bertjax.train import metrics


def test_a_task_that_is_no_language_model_is_learnt(tmp_path):
    assert toy.train(tmp_path)
    lines = metrics.read(tmp_path / metrics.METRICS)
    errors = [line["slope_error"] for line in lines if "slope_error" in line]
    assert len(errors) == 3 and errors[-1] < 0.1 * toy.SLOPE and errors == sorted(errors, reverse=True)
    losses = [line["squares_loss"] for line in lines if "squares_loss" in line]
    assert losses[-1] < 0.05 * losses[0]
    assert (tmp_path / "curves.png").exists()
