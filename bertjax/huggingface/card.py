"""The model card, README.md of an exported model."""

from typing import Any

from flax.traverse_util import flatten_dict

SENTENCES = (
    "sentence-transformers takes the mean of its hidden states for a sentence. It was not trained for that: good"
    " sentence vectors need contrastive training on pairs of sentences."
)


def model_card(values: dict[str, Any], notes: list[str], shown: dict[str, Any], *, tokenizer: bool) -> str:
    """The card, in Markdown, of a model with the config.json `values`; whether a `tokenizer` lies beside it.

    `notes` become a list, and the nested dict `shown` a table, each value in a code span, where nothing is markup.
    """

    def span(value: Any) -> str:
        text = "".join(c for c in " ".join(str(value).split()) if c.isprintable())
        return "`" + (text.replace("`", "'").replace("|", "\\|") or " ") + "`"

    (architecture,) = values["architectures"]
    lines = ["---", "library_name: transformers", "pipeline_tag: fill-mask", "tags:", "- bertjax"]
    lines += [f"- {values['model_type']}", "---", "", f"# {architecture}", ""]
    lines += ["Pretrained with bertjax, a JAX code base for the BERT family. To load it:", "", "```python"]
    for name in [architecture] + ["AutoTokenizer"] * tokenizer:
        lines.append(f'transformers.{name}.from_pretrained("this directory")')
    lines += ["```", ""]
    if tokenizer:
        notes = [*notes, SENTENCES]
    lines += [*(f"- {note}" for note in notes), ""]
    rows = [f"| {span('.'.join(map(str, path)))} | {span(value)} |" for path, value in flatten_dict(shown).items()]
    return "\n".join(lines + ["| | |", "|---|---|"] * bool(rows) + rows)
