"""Reading one file as a corpus."""

from collections import Counter

from bertjax.config.schema import DataConfig
from bertjax.corpus.units import documents

WIKI = '<doc id="1" url="u" title="A">\nA\n\nOne is here. Two is there.\n</doc>\n'


def read(path, content=None, **fields):
    """(documents of a file, counts of problems)"""
    if content is not None:
        path.write_bytes(content)
    counts = Counter()
    found = list(documents(DataConfig(source=(str(path),), **fields), counts))
    assert counts.pop("documents") == len(found)
    assert counts.pop("sentences") == sum(map(len, found))
    return found, dict(counts)
