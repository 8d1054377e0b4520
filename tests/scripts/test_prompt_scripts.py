"""eval/merge_prompts.py and eval/mixed_prompts.py on tiny data: every system measured, mixed batches as each alone."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.beir_folder import load


def run(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> Any:
    path = Path(__file__).resolve().parents[2] / "eval" / f"{name}.py"
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
    module.main()
    return json.loads(Path(arguments[-1]).read_text())  # type: ignore[arg-type]


def test_mixed_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = tiny.write_model(tmp_path), tiny.write_data(tmp_path / "data")
    few = ("--queries", 10, "--prompts", 4, "--single", 4, "--turns", 1)
    found = run("mixed_prompts", monkeypatch, data, "--model", model, *few, "--json", tmp_path / "result.json")
    assert (found["query_count"], found["prompt_count"], len(found["rows"])) == (10, 4, 5)
    for row in found["rows"]:
        assert 0 <= row["largest_difference_to_a_call_a_prompt"] < 1e-6
        assert 0 <= row["largest_difference_to_one_by_one"] < 1e-6


def test_merged_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, names = tiny.write_model(tmp_path), ("here", "there")
    folders = [tiny.write_data(tmp_path / name, dev=True, seed=seed) for seed, name in enumerate(names)]
    for seed, folder in enumerate(folders):
        biencoder = BiEncoder.load(model, device="cpu").attach(length=2, seed=seed)
        data = load(folder)
        biencoder.training_record = {"dataset": data.name, "corpus": data.corpus.fingerprint}
        biencoder.save(tmp_path / f"prompts {folder.name}")
    prompts = [tmp_path / f"prompts {name}" for name in names]
    found = run("merge_prompts", monkeypatch, *prompts, "--data", *folders, "--json", tmp_path / "result.json")
    assert [row["dataset"] for row in found["rows"]] == ["here", "there"]
    for row in found["rows"]:
        assert list(row["ndcg@10"]) == ["frozen", "here", "there", "average", "concatenation", "mixture"]
        assert row["gain"]["frozen"] == 0
        assert sum(row["mean_weight"].values()) == pytest.approx(1, abs=1e-5)
    best = max(found["dev_of_mixtures"], key=lambda each: sum(each["dev"].values()))
    assert {name: best[name] for name in ("temperature", "floor")} == found["mixture"]
