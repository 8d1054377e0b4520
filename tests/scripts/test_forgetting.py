"""eval/forgetting.py: a row a value of --keep, each a whole tuning with what is lost elsewhere."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import tiny

SCRIPT = Path(__file__).resolve().parents[2] / "eval" / "forgetting.py"


def test_a_row_a_value_of_keep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    specification = importlib.util.spec_from_file_location("forgetting", SCRIPT)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    model = tiny.write_model(tmp_path / "model")
    data, other = (tiny.write_data(tmp_path / name, dev=True, seed=seed) for seed, name in enumerate(("here", "there")))
    monkeypatch.setenv("RETRIEVAL_PROMPTS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("retrieval_prompts.experiments.selection.folds.TRIED", 5)  # no fold is left out
    result = tmp_path / "result.json"
    line = ["forgetting.py", data, "--also", other, "--model", model, "--keep", "0", "5", "--json", result]
    monkeypatch.setattr(sys, "argv", [str(part) for part in line])
    module.main()
    rows = json.loads(result.read_text())["rows"]
    assert [row["keep"] for row in rows] == [row["settings"]["keep"] for row in rows] == [0, 5]
    assert [[each["dataset"] for each in row["also"]] for row in rows] == [["there"]] * 2
    *_, last = (line for line in capsys.readouterr().out.splitlines() if line.startswith("|"))
    gains = [float(cell) for cell in last.strip("|").split("|")]
    dev, lost = rows[1]["choice"]["systems"], rows[1]["also"][0]["test"]["difference"]
    here = rows[1]["tests"]["tuned_vs_frozen"]["difference"]
    expected = [5, *(100 * gain for gain in (dev["tuned"]["all"] - dev["frozen"]["all"], here, lost, lost))]
    assert gains == pytest.approx(expected, abs=0.006)
    assert dev["tuned"] != dev["frozen"]
    for row in rows:  # as where every fold was given up
        del row["choice"]["systems"]["tuned"]
    *_, last = module.table(rows).splitlines()
    assert last.split("|")[2].strip() == "+0.00"
    with pytest.raises(SystemExit, match=r"^error: .*result\.json"):
        module.main()
