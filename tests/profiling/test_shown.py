"""`bertjax.profiling.shown`: the table for a person."""

import pytest

from bertjax.profiling import shown

SUMS = {"seconds": 0.15, "share": 0.6, "times": 50.0}
REPORT = {
    "device": "cpu",
    "devices": 1,
    "steps": 3,
    "by": "JAX's profiler",
    "step_seconds": 0.25,
    "untraced_seconds": 0.24,
    "covered": 0.9,
    "at_once": 1.25,
    "kinds": {"matrix products": SUMS, "optimizer": {"seconds": 0.075, "share": 0.3, "times": 1234.0}},
    "parts": {"attention": SUMS, "optimizer": {"seconds": 0.075, "share": 0.3, "times": 1234.0}},
    "operations": [
        {"name": "dot.1", "kind": "matrix products", "part": "attention", "place": "forward encoder Attention dot"}
        | SUMS
    ],
    "others": {"count": 1200, "seconds": 0.075, "share": 0.3},
    "assumptions": [],
}
FORESEEN = REPORT | {
    "device": "v5e:2x4",
    "devices": 8,
    "steps": 0,
    "by": "the TPU compiler's cycles",
    "untraced_seconds": None,
    "covered": None,
    "at_once": None,
    "others": {"count": 0, "seconds": 0.0, "share": 0.0},
    "assumptions": ["peak 197 TFLOP/s a chip", "no time for input"],
}


def test_the_text_of_what_was_measured():
    text = shown.text(REPORT)
    for part in (
        "1 x cpu: 250.0 ms a step, 3 of them traced by JAX's profiler",
        "without the trace 240.0 ms",
        "operations are at work in 90.0% of the time, 1.25 at once",
        "by kind                    ms a step    share  executed",
        "  matrix products             150.00    60.0%        50  and all that is fused with them",
        "  attention                   150.00    60.0%        50\n",
        "  optimizer                    75.00    30.0%     1,234",
        "  no operation at work         25.00    10.0%",
        "  matrix products             150.00    60.0%        50  forward encoder Attention dot (dot.1)",
        "  1,200 others                 75.00    30.0%",
    ):
        assert part in text
    assert "mean" not in text.split("at work")[1] and "assumes" not in text
    assert "of several devices, the mean" in shown.text(REPORT | {"devices": 8})


def test_the_text_of_an_estimate_says_that_it_is_one_and_by_whom():
    text = shown.text(FORESEEN)
    assert "v5e:2x4: 250.0 ms a step, estimated by the TPU compiler's cycles; nothing was run" in text
    assert "this assumes\n  peak 197 TFLOP/s a chip\n  no time for input" in text
    assert "at work" not in text and "trace" not in text and "others" not in text


@pytest.mark.parametrize("report", [REPORT, FORESEEN], ids=["measured", "estimated"])
def test_a_picture(tmp_path, report):
    shown.plot(report, tmp_path / "x.svg")
    written = (tmp_path / "x.svg").read_bytes()
    assert written.startswith(b"<?xml") and b"forward encoder Attention dot" in written and b"optimizer" in written
