"""eval/bitext.py: which messages of a catalogue become pairs, and both ways."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

pytest.importorskip("babel", reason="babel reads the catalogues")
from eval import bitext
from retrieval_prompts import load

MESSAGES = [
    ("That page has no results", "Diese Seite hat keine Treffer"),
    ("That page has no results", "Keine Treffer auf dieser Seite"),  # the same words on one side
    ("Two words", "Nur zwei"),
    ("Delete %(name)s for ever", "Lösche %(name)s für immer"),
    ("Not translated at all", ""),
    ("Choose a file to send", "Wähle eine Datei zum Senden"),
]


def wheel(path: Path) -> Path:
    head = 'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n'
    content = head + "".join(f'\nmsgctxt "{n}"\nmsgid "{a}"\nmsgstr "{b}"\n' for n, (a, b) in enumerate(MESSAGES))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("app/locale/de/LC_MESSAGES/django.po", content)
        archive.writestr("app/locale/fr/LC_MESSAGES/django.po", content)
    return path


def test_sentences_and_their_translations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [str(wheel(tmp_path / "app.whl")), "--language", "de", "--out", str(tmp_path / "out")]
    bitext.main(given)
    there, back = (load(tmp_path / "out" / way) for way in ("en-de", "de-en"))
    assert list(there.queries.values()) == [MESSAGES[0][0], MESSAGES[5][0]]
    assert [document.text for document in there.corpus] == [MESSAGES[0][1], MESSAGES[5][1]]
    assert list(back.queries.values()) == [document.text for document in there.corpus]
    assert there.qrels == back.qrels, "a pair is in the same split both ways"
    for wrong, said in ((given, "exist already"), ([str(tmp_path / "none"), *given[1:]], "is not a wheel")):
        with pytest.raises(SystemExit, match="2"):
            bitext.main(wrong)
        assert said in capsys.readouterr().err
