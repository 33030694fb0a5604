"""`bertjax.progress`: lines where there is no terminal."""

from bertjax.progress import Progress


def test_lines_go_to_standard_error(capsys):
    progress = Progress(3, start=1, unit="step", label="train")
    progress.advance()
    progress.reach(3)
    progress.say("step 3/3")
    progress.close()
    out, err = capsys.readouterr()
    assert out == "" and err == "step 3/3\n"
