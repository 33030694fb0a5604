"""`bertjax.ahead.shown`: the report for a person."""

import pytest

from bertjax.ahead import shown

REPORT = {
    "topology": "v5e:2x4",
    "chips": 8,
    "mesh": {"data": 4, "fsdp": 2, "tensor": 1},
    "rows_per_chip": 16,
    "accumulate": 2,
    "remat": "dots",
    "tokens_per_step": 131_072,
    "compile_seconds": 61.2,
    "flops_per_step": 2.5e14,
    "fits": True,
    "bytes_per_chip": {
        "arguments": 4_000_000_000,
        "parameters": 1_300_000_000,
        "optimizer": 2_600_000_000,
        "temporaries": 6_000_000_000,
        "code": 26_000_000,
        "total": 10_026_000_000,
        "capacity": 16_911_433_728,
    },
    "collectives": {
        "all-reduce": {"count": 54, "bytes": 861_000_000, "split": 0},
        "all-gather": {"count": 24, "bytes": 600_000_000, "split": 24},
    },
    "estimated": {
        "step_seconds": 0.25,
        "mfu": 0.634,
        "by": "the TPU compiler's cycles",
        "assumptions": ["peak 197 TFLOP/s a chip", "no time for input"],
        "exchange_seconds": 0.02,
        "exposed_seconds": 0.01,
        "operations": {"forward encoder FFN": 0.2, "3 others": 0.04, "exchanges, not covered": 0.01},
    },
}
REFUSED = REPORT | {
    "fits": False,
    "collectives": {},
    "estimated": None,
    "refused": "Ran out of memory",
    "bytes_per_chip": REPORT["bytes_per_chip"] | {"temporaries": None, "code": None, "total": 20_000_000_000},
}


def test_the_text_says_what_is_estimated_and_by_whom():
    text = shown.text(REPORT)
    for part in (
        "v5e:2x4: 8 chips, mesh data 4, fsdp 2, tensor 1; 16 rows a chip at a time, 2 times a step; remat dots",
        "compiled in 61 s: fits",
        "bytes of each chip, by the compiler",
        "6.000 GB",
        "0.861 GB   54, none of them beside other work",
        "0.600 GB   24, 24 of them beside other work",
        "estimated, by the TPU compiler's cycles: 250.0 ms a step, MFU 63.4%, 524,288 tokens a second",
        "exchanges take 20.0 ms, of which other work covers all but 10.0 ms",
        "80.0%",
        "this assumes\n  peak 197 TFLOP/s a chip\n  no time for input",
    ):
        assert part in text


def test_the_text_of_what_the_compiler_refuses():
    text = shown.text(REFUSED)
    assert "DOES NOT FIT" in text and "not known: Ran out of memory" in text and "estimated" not in text


def test_what_was_tried():
    lines = [
        {"change": {}, "fits": True, "total": 10**10, "step_seconds": 0.25},
        {"change": {"mesh": {"data": 1, "fsdp": 8}}, "fits": False, "total": 2 * 10**10, "step_seconds": None},
        {"change": {"mesh": {"tensor": 4}}, "fits": False, "total": None, "step_seconds": None, "refused": "2 heads"},
    ]
    text = shown.tried(lines, ["--config.mesh.fsdp=8"])
    rows = text.splitlines()
    assert "the config as it is" in rows[1] and rows[1].endswith("250.0 ms")
    assert "mesh.data = 1, mesh.fsdp = 8" in rows[2] and "20.00 GB" in rows[2] and rows[2].endswith("does not fit")
    assert rows[3].endswith("2 heads") and text.endswith("--config.mesh.fsdp=8")


@pytest.mark.parametrize("report", [REPORT, REFUSED])
@pytest.mark.parametrize(("ending", "begin"), [(".png", b"\x89PNG"), (".svg", b"<?xml")])
def test_a_picture(tmp_path, report, ending, begin):
    path = tmp_path / f"picture{ending}"
    shown.plot(report, path)
    written = path.read_bytes()
    assert written.startswith(begin)
    if ending == ".svg":
        assert (b"forward encoder FFN" in written) == (report is REPORT)
