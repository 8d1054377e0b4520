"""The script of caption retrieval, on small data and a random model: what it writes, and that it goes on."""

from __future__ import annotations

import importlib.util
import json
import statistics
import sys
from pathlib import Path
from types import ModuleType

import pytest
import tiny_clip

from retrieval_prompts.evaluation.metrics import means, per_query
from retrieval_prompts.evaluation.trec_runs import read_run

SCRIPT = Path(__file__).parents[2] / "eval" / "run_image_text.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_image_text", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("image-text")
    tiny_clip.write_clip(root / "clip")
    return tiny_clip.write_captions(root)


def arguments(here: Path, out: Path, *more: str) -> list[str]:
    given = ["--captions", here / "captions.csv", "--model", here / "clip", "--out", out, "--cache", here / "cache"]
    return [*map(str, given), *more]


def test_zero_shot_alone(script: ModuleType, here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script.main(arguments(here, tmp_path / "out.json"))
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["protocol"] == "image-text" and found["split"] == "test" and found["dataset"] == "captions"
    assert (found["images"], found["captions"], found["runs"]) == (8, 16, {})
    assert set(found["systems"]) == {"zero-shot"}
    assert set(found["systems"]["zero-shot"]) == {"i2t", "t2i"}
    assert set(found["systems"]["zero-shot"]["t2i"]) == {"r@1", "r@5", "r@10"}
    shown = capsys.readouterr().out
    assert "zero-shot" in shown and f"{100 * found['systems']['zero-shot']['t2i']['r@5']:.1f}" in shown


def test_seeds_and_going_on(
    script: ModuleType, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    tune = ["--tune", "coop", "--set", "epochs=1", "--keep", str(tmp_path / "prompts")]
    script.main(arguments(here, out, *tune, "--seeds", "1"))
    first = json.loads(out.read_text())
    assert list(first["runs"]) == ["coop, seed 1"]
    script.main(arguments(here, out, *tune, "--seeds", "1,2"))
    found = json.loads(out.read_text())
    assert found["runs"]["coop, seed 1"] == first["runs"]["coop, seed 1"], "it was not done again"
    scores = [run["t2i"]["r@5"] for run in found["runs"].values()]
    assert found["systems"]["tuned"]["t2i"]["r@5"] == pytest.approx(statistics.fmean(scores))
    assert found["std"]["t2i"]["r@5"] == pytest.approx(statistics.stdev(scores))
    run = found["runs"]["coop, seed 2"]
    assert run["training"]["settings"]["seed"] == 2 and run["training"]["images"] == 14
    assert set(run["tests"]) == {"i2t", "t2i"} and 0 <= run["strength"] <= 1
    assert "tuned (2 runs)" in capsys.readouterr().out

    # Prompts that were kept give the same figures, and are written by nobody twice
    again = tmp_path / "again.json"
    script.main(arguments(here, again, "--prompts", str(tmp_path / "prompts" / "coop-2")))
    loaded = json.loads(again.read_text())["runs"]["coop-2"]
    assert {way: loaded[way] for way in ("i2t", "t2i")} == {way: run[way] for way in ("i2t", "t2i")}
    with pytest.raises(SystemExit) as error:
        script.main(arguments(here, tmp_path / "third.json", *tune, "--seeds", "2"))
    assert "exists already" in str(error.value)


def test_runs_and_a_report(script: ModuleType, here: Path, tmp_path: Path) -> None:
    out, folder, page = tmp_path / "out.json", tmp_path / "runs", tmp_path / "page.html"
    beside = ["--runs", str(folder), "--report", str(page)]
    script.main(arguments(here, out, *beside))
    both = [f"captions.{way}" for way in ("i2t", "t2i")]
    names = [f"{way}.{name}" for way in both for name in ("qrels.tsv", "zero-shot.trec")]
    assert sorted(path.name for path in folder.iterdir()) == ["SHA256SUMS", *sorted(names)]
    assert "captions, text to image" in page.read_text() and "tuned" not in page.read_text().partition("<script")[0]

    tune = ["--tune", "coop", "--set", "epochs=1", "learning_rate=0.05", "--overwrite"]
    script.main(arguments(here, out, *beside, *tune, "--seeds", "1,2"))
    found = json.loads(out.read_text())
    for way in both:
        rows = [line.split("\t") for line in (folder / f"{way}.qrels.tsv").read_text().splitlines()[1:]]
        qrels: dict[str, dict[str, int]] = {}
        for query, document, grade in rows:
            qrels.setdefault(query, {})[document] = int(grade)
        for seed in (1, 2):
            hits = means(per_query(qrels, read_run(folder / f"{way}.coop-{seed}.trec"), ["hit@1", "hit@5"]))
            expected = found["runs"][f"coop, seed {seed}"][way[-3:]]
            assert hits == {"hit@1": pytest.approx(expected["r@1"]), "hit@5": pytest.approx(expected["r@5"])}
    assert "tuned: the mean of 2 runs, of which coop-1 is shown" in page.read_text()
    with pytest.raises(SystemExit) as error:
        script.main(arguments(here, tmp_path / "other.json", "--runs", str(folder)))
    assert "holds the runs of another result" in str(error.value)


def test_a_result_of_something_else_is_kept(script: ModuleType, here: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    script.main(arguments(here, out))
    before = out.read_bytes()
    with pytest.raises(SystemExit) as error:
        script.main(arguments(here, out, "--split", "train"))
    assert str(error.value) == (
        f"error: {out} was made with another split, data; choose another --out or pass --overwrite"
    )
    assert out.read_bytes() == before
    script.main(arguments(here, out, "--split", "train", "--overwrite"))
    assert json.loads(out.read_text())["images"] == 16


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--tune", "coop", "--seeds", "1,x"], "--seeds: expected whole numbers such as 1,2,3, got 'x'"),
        (["--tune", "nothing"], "got 'nothing'"),
        (["--split", "val"], "has no captions of the split 'val'; it has test, train"),
        (["--prompts", "a/b", "c/b"], "expected prompt folders of different names, got b"),
    ],
)
def test_mistakes(script: ModuleType, here: Path, tmp_path: Path, more: list[str], said: str) -> None:
    with pytest.raises(SystemExit) as error:
        script.main(arguments(here, tmp_path / "out.json", *more))
    assert said in str(error.value)
