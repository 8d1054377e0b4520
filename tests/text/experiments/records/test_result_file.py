"""Result files are gone on from only with what they were made with."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from retrieval_prompts.errors import UserError
from retrieval_prompts.experiments.records.result_file import made_on, resume, write
from retrieval_prompts.files import read_json, write_json

WANTED: dict[str, Any] = {"model": "m", "settings": {"shots": 4, "layers": (1, 2)}, "pretrained": None}


def test_a_new_result_is_what_was_wanted_and_empty_fields(tmp_path: Path) -> None:
    result = resume(tmp_path / "out.json", WANTED, {"runs": {}}, False)
    assert list(result) == ["model", "settings", "pretrained", "runs"] and result["runs"] == {}
    assert not (tmp_path / "out.json").exists(), "nothing is written"


def test_a_result_is_gone_on_from(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    write_json(out, {**resume(out, WANTED, {"runs": {}}, False), "runs": {"1": 0.5}, "more": 1})
    found = resume(out, WANTED, {"runs": {}, "notes": []}, False)
    assert found == {**read_json(out), "notes": []}, "tuples are lists in a file; a new field is empty"
    assert list(found) == [*read_json(out), "notes"], "the file's order stays"
    assert resume(out, {**WANTED, "model": "other"}, {"runs": {}}, True)["runs"] == {}, "overwrite begins anew"


def test_a_result_that_was_changed_since_it_was_written_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    write(out, {**resume(out, WANTED, {"runs": {}}, False), "runs": {"1": 0.5}})
    assert resume(out, WANTED, {}, False) == {**WANTED, "settings": {"shots": 4, "layers": [1, 2]}, "runs": {"1": 0.5}}
    out.write_text(out.read_text().replace("0.5", "0.6"))
    with pytest.raises(UserError, match=r"out\.json was changed after it was written \(its sha256 differs\)"):
        resume(out, WANTED, {}, False)


@pytest.mark.parametrize(
    ("changed", "named"),
    [({"model": "n"}, "model"), ({"settings": {}, "pretrained": "a"}, "settings, pretrained"), ({"seed": 1}, "seed")],
)
def test_a_result_of_something_else_is_refused(tmp_path: Path, changed: dict[str, Any], named: str) -> None:
    out = tmp_path / "out.json"
    write_json(out, {**WANTED, "runs": {}})
    with pytest.raises(UserError) as error:
        resume(out, {**WANTED, **changed}, {"runs": {}}, False)
    assert str(error.value) == f"{out} was made with another {named}; choose another --out or pass --overwrite"


def test_what_is_no_result_or_no_place_for_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(UserError, match=r"list.json was made with another model, settings; choose"):
        resume(tmp_path / "list.json", WANTED, {}, False)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UserError, match=r"broken.json is not valid JSON"):
        resume(tmp_path / "broken.json", WANTED, {}, False)
    with pytest.raises(UserError, match="is a folder; expected the name of a file"):
        resume(tmp_path, WANTED, {}, True)


def test_made_on() -> None:
    found = made_on(["numpy", "no-such-package-anywhere"])
    assert found["versions"] == {"numpy": version("numpy"), "no-such-package-anywhere": None}
    assert found["machine"] == {"system": platform.platform(), "python": platform.python_version()}
    assert found["device"] in ("cpu", "cuda")
