"""Each public data set beside the repository goes from its recipe to metrics by one command, its oddities included."""

import json
from pathlib import Path

import pytest

from bertjax.cli.main import main

SHARED = Path(__file__).parents[3] / "shared" / "data"
SETS = {
    "cola": ("finetune/glue:cola,small", "glue/cola/train.tsv", "glue/cola/dev.tsv", "", (8_551, 1_043)),
    "sst2": (
        "finetune/glue:sst2,small",
        "glue/sst2/train.tsv",
        "glue/sst2/dev.tsv",
        "glue/sst2/test.tsv",
        (60_614, 6_735, 872),
    ),
    "stsb": ("finetune/glue:stsb,small", "glue/stsb/train.tsv", "glue/stsb/dev.tsv", "", (5_749, 1_500)),
    "rte": ("finetune/glue:rte,small", "glue/rte/train.tsv", "glue/rte/dev.tsv", "", (1_244, 139)),
    "qnli": ("finetune/glue:qnli,small", "glue/qnli/dev.tsv", "", "", (2_215, 246)),
    "agnews": ("finetune/classify:agnews", "text/agnews/dev.tsv", "", "text/agnews/test.tsv", (9_001, 1_000, 7_600)),
    "trec": ("finetune/classify:trec", "text/trec/train.txt", "", "text/trec/test.txt", (4_907, 545, 500)),
    "squad1": ("finetune/squad", "squad/v1/train.json", "squad/v1/dev.json", "", (11_877, 4_961)),
    "squad2": ("finetune/squad", "squad/v2/dev.json", "", "", (3_404, 378)),
    "wnut17": (
        "finetune/ner",
        "ner/wnut17/train.conll",
        "ner/wnut17/dev.conll",
        "ner/wnut17/test.conll",
        (3_394, 1_009, 1_287),
    ),
    "wikiann": ("finetune/ner", "ner/wikiann/train", "ner/wikiann/dev", "ner/wikiann/test", (20_000, 10_000, 10_000)),
}
"""Recipe, train, dev ("" = a tenth of train), test, and how many examples each must have."""
TINY = ("num_layers=1", "hidden_size=32", "embedding_size=32", "num_heads=2", "ffn_size=32", "max_positions=128")


@pytest.mark.long
@pytest.mark.parametrize("name", SETS)
def test_a_data_set_goes_from_its_recipe_to_metrics(name, tmp_path, capsys):
    recipe, *files, counts = SETS[name]
    if not SHARED.is_dir():
        pytest.skip(f"no data sets in {SHARED}")
    named = [
        f"--config.task.{split}={SHARED / file if file else ''}"
        for split, file in zip(("train", "dev", "test"), files, strict=True)
    ]
    length = [
        "--config.data.seq_len=128",
        "--config.data.buckets=",
        "--config.task.max_question=32",
        "--config.task.epochs=0.01",
    ]
    with pytest.raises(SystemExit) as end:
        main(
            [
                "finetune",
                f"--config={recipe}",
                f"--workdir={tmp_path}",
                "--json",
                *named,
                *length,
                *(f"--config.model.{x}" for x in TINY),
            ]
        )
    assert not end.value.code
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert tuple(result["examples"].values()) == counts
    for split in result["metrics"]:
        assert result["metric"] in result["metrics"][split]
        assert len((tmp_path / f"predictions.{split}.jsonl").read_text().splitlines()) == result["examples"][split]
