"""The model card that goes with an export."""

from directories import write


def test_the_card_shows_its_values_as_they_are(tmp_path):
    """A table of code spans, in which nothing is markup, and front matter that is what we wrote."""
    card = {
        "data": {"digest": "ab" * 32, "source": "my|text`<script>alert(1)</script>\n---\nlicense: x"},
        "metrics": {"mlm_loss": 1.25},
        "version": "0.1.0",
    }
    text = (write(tmp_path / "model", card=card) / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    expected = ["library_name: transformers", "pipeline_tag: fill-mask", "tags:", "- bertjax", "- bert"]
    assert front.splitlines() == expected
    assert f"| `data.digest` | `{'ab' * 32}` |\n" in body and "| `metrics.mlm_loss` | `1.25` |\n" in body
    assert "| `data.source` | `my\\|text'<script>alert(1)</script> --- license: x` |\n" in body
    assert "BertForPreTraining" in body and "AutoTokenizer" not in body
