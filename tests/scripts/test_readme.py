"""The tables of README and docs are those of the committed results."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
EVALUATION, IMAGES = ((ROOT / page).read_text(encoding="utf-8") for page in ("docs/evaluation.md", "docs/images.md"))


def test_the_tables_are_those_of_the_results() -> None:
    assert _script("results_table").table() in EVALUATION, "run eval/results_table.py and put its table in"
    assert (ROOT / "eval/results/beir-baselines.md").read_text().strip() in EVALUATION
    indexes = _script("index_table")
    assert indexes.gains() in EVALUATION, "run eval/index_table.py and put its second table in"
    assert indexes.speed() in (ROOT / "eval/README.md").read_text(), "and its first table into eval/README.md"
    images = _script("image_table")
    for table in (images.speed(), images.base_to_new(), images.retrieval()):
        assert table in IMAGES, "run eval/image_table.py and put its tables in"
    assert images.by_shots() in (ROOT / "eval/README.md").read_text(), "and its last ones into eval/README.md"


def _script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"eval/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
