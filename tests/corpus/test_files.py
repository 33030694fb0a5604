"""Each form of file gives its documents, and what is broken in it is dropped or kept by the rule, and counted."""

import json

from corpus.reading import WIKI, read

from bertjax.corpus import files


def test_bad_lines_of_json_are_dropped_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_JSON_BYTES", 50)
    lines = ['{"text": "A b."}', '{"text": ', '{"body": "A."}', '{"text": null}', '{"text": "\\udc00"}', "[" * 40, "1"]
    lines += ['{"text": "' + "too long " * 9 + '"}', '{"text": "Caf\xe9."}', "", '{"text": "The last."}']
    found, counts = read(tmp_path / "x.jsonl", "\n".join(lines).encode("latin1"))
    assert found == [["A b."], ["Café."], ["The last."]]
    assert counts == {"bad_json_lines": 7, "bad_utf8_lines": 1}


def test_broken_wikiextractor_files_are_read(tmp_path):
    broken = '<doc title="B">\nB\nText of b.\n'
    content = (
        "\nOutside. It\nis.\n" + WIKI + "Between.\n" + broken + WIKI + "</doc>\n" + broken + '<doc title="C">\nC\n'
    )
    found, counts = read(tmp_path / "x", content.encode(), format="wikiextractor")
    assert found == [["One is here.", "Two is there."], ["Text of b."]] * 2
    assert counts == {"outside_lines": 4, "broken_documents": 3, "empty_documents": 1}


def test_only_the_first_line_of_an_article_repeats_the_title(tmp_path):
    content = (
        '<doc title="A &amp; B">\nA & B\nText.\nA & B\n</doc>\n<doc title="A">\n\nText.\nA\n</doc>\n<doc >\nD\n</doc>'
    )
    found, counts = read(tmp_path / "x", content.encode())
    assert (found, counts) == ([["Text.", "A & B"], ["Text.", "A"], ["D"]], {})


def test_markers_of_wiki40b_end_paragraphs(tmp_path):
    text = (
        "\n_START_ARTICLE_\nA title\n_START_PARAGRAPH_\nOne is here. Two_NEWLINE_Three is."
        "\n_START_SECTION_\nA section\n_START_PARAGRAPH_\nFour."
    )
    lines = [json.dumps({"text": text}), json.dumps({"text": "A_NEWLINE_b."})]
    found, _ = read(tmp_path / "x.jsonl", "\n".join(lines).encode())
    assert found == [["A title", "One is here.", "Two", "Three is.", "A section", "Four."], ["A_NEWLINE_b."]]
