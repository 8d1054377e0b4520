"""The comparison with authors' code finds what differs: a repository of a few lines, once right and once not."""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
TIP_ADAPTER = """
def search_hp(): ...
def cls_acc(logits, labels): ...

def run_tip_adapter(config, keys, values, val, val_labels, x, labels, weights):
    beta, alpha = search_hp()
    cls_acc((100 * x @ weights + alpha * (beta * (x @ keys - 1)).exp() @ values).half().cuda(), labels)
"""


@pytest.fixture
def fidelity(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("eval.fidelity.run")


def repository(folder: Path, text: str) -> Path:
    """A folder of clones with one of them."""
    inside = folder / "Tip-Adapter"
    inside.mkdir(parents=True)
    (folder / "PromptKD").mkdir()
    (inside / "main.py").write_text(text)
    author = ["-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-q", "-m", "First"]):
        subprocess.run(["git", "-C", inside, *command], check=True)
    return folder


def test_the_same_is_equal_and_a_different_weight_is_not(
    fidelity: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, before = [], (sys.modules.get("main"), torch.Tensor.half)
    for name, text in (("right", TIP_ADAPTER), ("wrong", TIP_ADAPTER.replace("100 *", "101 *"))):
        out = tmp_path / f"{name}.json"
        folder = repository(tmp_path / name, text)
        status = fidelity.run(argparse.Namespace(repositories=folder, only="tip-adapter", json=out))
        rows.append((status, json.loads(out.read_text())["rows"]["tip-adapter"]))
    (fine, right), (failed, wrong) = rows
    assert (fine, right["equal"], failed, wrong["equal"]) == (0, True, 1, False)
    assert right["differences"]["logits"] < 1e-12 < 1e-3 < wrong["differences"]["logits"] < 1e-1
    assert right["repository"] == "gaopengcuhk/Tip-Adapter" and len(right["commit"]) == 40
    assert "different without a word why: tip-adapter" in capsys.readouterr().err
    assert (sys.modules.get("main"), torch.Tensor.half) == before and torch.get_default_dtype() == torch.float32


def test_a_clone_that_is_missing_is_named(fidelity: Any, tmp_path: Path) -> None:
    with pytest.raises(fidelity.UserError, match=r"git clone https://github\.com/jusiro/CLAP"):
        fidelity.clone(tmp_path, "CLAP")


def test_what_differs_counts(fidelity: Any) -> None:
    compare = importlib.import_module("eval.fidelity.compare")
    three, zero = torch.tensor([3.0, 4.0]), torch.zeros(2)
    assert compare.relative(torch.tensor([3.0, 4.5]), three) == pytest.approx(0.1)
    assert compare.relative(zero, zero) == 0
    assert compare.relative(three, zero) == compare.relative(three[:1], three) == float("inf")
    assert compare.relative(three * float("nan"), three) == float("inf")
    one, other = compare.Side({"loss": {"a": three}}), compare.Side({"loss": {"b": three}})
    with pytest.raises(ValueError, match=r"loss: ours has \['a'\], theirs \['b'\]"):
        compare.differences(one, other)
    row = compare.Row("coop", "a/b", "0" * 40, "loss", {"loss": 0.0}, settings={"epochs": [200, 50]})
    assert not row.equal and "epochs: 200 there, 50 here" in compare.table([row.as_json])
