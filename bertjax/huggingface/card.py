"""The model card, README.md of an exported model."""

from typing import Any

from flax.traverse_util import flatten_dict

from bertjax.huggingface.names import ANSWERS, CHOOSES, CLASSIFIES, TAGS

TASKS = {
    CLASSIFIES: "text-classification",
    TAGS: "token-classification",
    ANSWERS: "question-answering",
    CHOOSES: "multiple-choice",
}
"""Ending of a class -> the name of its task on the hub."""
SENTENCES = (
    "sentence-transformers takes the mean of its hidden states for a sentence. It was not trained for that: good"
    " sentence vectors need contrastive training on pairs of sentences."
)


def model_card(values: dict[str, Any], notes: list[str], shown: dict[str, Any], *, tokenizer: bool) -> str:
    """The card, in Markdown, of a model with the config.json `values`; whether a `tokenizer` lies beside it.

    `notes` become a list, and the nested dict `shown` a table, each value in a code span, where nothing is markup.
    """
    (architecture,) = values["architectures"]
    task = next((task for ending, task in TASKS.items() if architecture.endswith(ending)), "fill-mask")
    lines = ["---", "library_name: transformers", f"pipeline_tag: {task}", "tags:", "- bertjax"]
    lines += [f"- {values['model_type']}", "---", "", f"# {architecture}", ""]
    trained = "Pretrained" if task == "fill-mask" else "Fine-tuned"
    lines += [f"{trained} with bertjax, a JAX code base for the BERT family. To load it:", "", "```python"]
    for name in [architecture] + ["AutoTokenizer"] * tokenizer:
        lines.append(f'transformers.{name}.from_pretrained("this directory")')
    lines += ["```", ""]
    if tokenizer and task == "fill-mask":
        notes = [*notes, SENTENCES]
    lines += [*(f"- {note}" for note in notes), ""]
    rows = [f"| {span('.'.join(map(str, path)))} | {span(value)} |" for path, value in flatten_dict(shown).items()]
    return "\n".join(lines + ["| | |", "|---|---|"] * bool(rows) + rows)


def span(value: Any) -> str:
    """Of Markdown: the value as it is."""
    text = "".join(c for c in " ".join(str(value).split()) if c.isprintable())
    return "`" + (text.replace("`", "'").replace("|", "\\|") or " ") + "`"
