"""The script of the published protocol, on small data sets and a random model: what it writes, and that it goes on."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torch import Tensor

from multimodal.data.published import LAYOUTS
from multimodal.towers.clip import Clip
from retrieval_prompts.evaluation.metrics import means, per_query
from retrieval_prompts.evaluation.trec_runs import read_run

SCRIPT = Path(__file__).parents[2] / "eval" / "run_classification.py"
COLOURS = {"red": (200, 30, 30), "blue": (30, 30, 200), "green": (30, 200, 30), "grey": (120, 120, 120)}


def pixels(image: Any) -> Tensor:
    return torch.from_numpy(np.array(image.convert("RGB").resize((16, 16)))).permute(2, 0, 1).float() / 255


@pytest.fixture(scope="module")
def clip() -> Clip:
    """A random CLIP."""
    image = {"layers": 2, "width": 24, "head_width": 12, "patch_size": 8, "image_size": 16}
    text = {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.CLIP(embed_dim=16, vision_cfg=image, text_cfg=text)
    model.visual.image_mean, model.visual.image_std = (0.0,) * 3, (1.0,) * 3  # of crops
    return Clip(model, pixels, open_clip.SimpleTokenizer(context_length=24), "toy")


@pytest.fixture
def script(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("run_classification", SCRIPT)
    assert spec is not None and spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "run_classification", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "load_clip", lambda *_: clip)
    return module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """EuroSAT's layout and an image folder: 4 classes, 4 pictures each in train and 2 in test."""
    rng = np.random.default_rng(0)
    content: dict[str, list[tuple[str, int, str]]] = {"train": [], "val": [], "test": []}
    for split, count in (("train", 4), ("test", 2)):
        for label, (name, colour) in enumerate(COLOURS.items()):
            for number in range(count):
                noisy = np.clip(np.array(colour) + rng.integers(-30, 30, size=(8, 8, 3)), 0, 255).astype(np.uint8)
                path = f"{name}/{split}{number}.png"
                for place in (tmp_path / "eurosat" / "2750", tmp_path / "paints" / split):
                    (place / name).mkdir(parents=True, exist_ok=True)
                    Image.fromarray(noisy).save(place / path)
                content[split].append((path, label, name))
    (tmp_path / "eurosat" / LAYOUTS["eurosat"].listing).write_text(json.dumps(content))
    return tmp_path


def arguments(folder: Path, **changed: str) -> list[str]:
    options = {
        "--data-dir": str(folder),
        "--datasets": f"eurosat,folder:{folder / 'paints'}",
        "--method": "coop",
        "--shots": "2",
        "--seeds": "1,2",
        "--protocol": "base-to-new",
        "--cache": str(folder / "cache"),
        "--out": str(folder / "out.json"),
        **{f"--{name}": value for name, value in changed.items()},
    }
    return [word for pair in options.items() for word in pair] + ["--set", "epochs=2", "calibrate=false"]


def test_methods_as_published(script: Any, folder: Path) -> None:
    script.main(arguments(folder, datasets="eurosat", seeds="1", method="promptsrc,kgcoop", recipe="paper"))
    result = json.loads((folder / "out.json").read_text())
    assert (result["settings"]["recipe"], result["settings"]["epochs"]) == ("paper", 2)
    runs = result["datasets"]["eurosat"]["runs"]
    for name, own in (("promptsrc", {"average_at": 0.75, "batch_size": 4}), ("kgcoop", {"batch_size": 128})):
        settings = runs[f"{name}, seed 1"]["settings"]
        expected = {"optimizer": "sgd", "augment": "crops", "head": "none", "epochs": 2, **own}
        assert expected.items() <= settings["prompts"].items(), "of base-to-new, and what is given wins"
        assert settings["template"] == "a centered satellite photo of {}."
    assert set(result["datasets"]["eurosat"]["scores"]) >= {"zero-shot", "promptsrc", "kgcoop"}


def test_base_to_new_is_written_and_goes_on(script: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[tuple[str, str, int]] = []
    real = script.tune

    def tune(clip: Clip, data: Any, settings: Any, **options: Any) -> Any:
        trained.append((data.name, settings.method, settings.seed))
        assert np.bincount(data.splits["train"].labels).tolist() == [2, 2, 2, 2]
        return real(clip, data, settings, **options)

    monkeypatch.setattr(script, "tune", tune)
    script.main(arguments(folder))
    assert trained == [(name, "coop", seed) for name in ("eurosat", "paints") for seed in (1, 2)]
    result = json.loads((folder / "out.json").read_text())
    assert (result["protocol"], result["model"], result["settings"]["epochs"]) == ("base-to-new", "toy", 2)
    assert result["settings"]["shots"] == 2
    eurosat = result["datasets"]["eurosat"]
    assert set(eurosat["scores"]) == {"zero-shot", "zero-shot-ensemble", "linear-probe", "coop"}
    assert set(eurosat["scores"]["coop"]) == set(eurosat["scores"]["linear-probe"]) == {"1", "2"}
    assert eurosat["counts"] == {"classes": 4, "train": 16, "test": 8}
    first = eurosat["runs"]["coop, seed 1"]
    assert (
        first["settings"]["template"] == first["settings"]["prompts"]["template"] == "a centered satellite photo of {}."
    )
    assert first["training"]["subset"] == "base" and first["training"]["images"] == 4
    assert first["settings"]["classes"] == [2, 2]
    # Base are the first labels, which are not the first names: red and blue
    base = result["summary"]["eurosat"]["coop"]
    assert base["seeds"] == 2 and base["base"] == np.mean([base["per_seed"][seed]["base"] for seed in "12"])
    assert result["summary"]["eurosat"]["linear-probe"]["new"] is None
    means = result["summary"][script.MEAN]
    assert means["coop"]["new"] == pytest.approx(
        np.mean([result["summary"][d]["coop"]["new"] for d in ("eurosat", "paints")])
    )
    assert set(means["zero-shot"]) == set(base) - {"seeds", "std", "per_seed"}

    script.main(arguments(folder))  # nothing is left to do
    assert len(trained) == 4
    assert json.loads((folder / "out.json").read_text()) == result
    script.main(arguments(folder, seeds="2,3", method="coop,kgcoop", datasets="eurosat"))
    assert trained[4:] == [("eurosat", "coop", 3), ("eurosat", "kgcoop", 2), ("eurosat", "kgcoop", 3)]
    more = json.loads((folder / "out.json").read_text())
    assert more["datasets"]["eurosat"]["scores"]["coop"]["1"] == eurosat["scores"]["coop"]["1"]
    assert more["datasets"]["paints"] == result["datasets"]["paints"]
    assert set(more["summary"][script.MEAN]) == {"zero-shot", "zero-shot-ensemble", "linear-probe", "coop"}


def test_what_is_adapted_is_one_more_row(script: Any, folder: Path) -> None:
    pytest.importorskip("peft")
    small = {"datasets": "eurosat", "out": str(folder / "lora.json"), "baselines": "clip-lora:1,2sfs:2"}
    script.main(arguments(folder, **small))
    result = json.loads((folder / "lora.json").read_text())
    scores = result["datasets"]["eurosat"]["scores"]
    for name in ("clip-lora", "2sfs"):
        assert set(scores[name]) == {"1", "2"} and set(scores[name]["1"]) == set(scores["coop"]["1"])
    assert result["settings"]["baselines"] == "clip-lora:1,2sfs:2"


@pytest.mark.parametrize("protocol", ["few-shot", "base-to-new"])
def test_runs_and_a_report(script: Any, folder: Path, protocol: str, capsys: pytest.CaptureFixture[str]) -> None:
    beside = ["--runs", str(folder / "runs"), "--report", str(folder / "page.html")]
    script.main([*arguments(folder, protocol=protocol, seeds="1"), *beside])
    result = json.loads((folder / "out.json").read_text())
    parts = {"base": "base", "new": "new"} if protocol == "base-to-new" else {"": "accuracy"}
    for part, accuracy in parts.items():
        stem = f"eurosat.{part}" if part else "eurosat"
        rows = [line.split("\t") for line in (folder / "runs" / f"{stem}.qrels.tsv").read_text().splitlines()[1:]]
        qrels = {query: {document: int(grade)} for query, document, grade in rows}
        assert len(qrels) == 8 / len(parts)
        for system, name in (("coop-1", "coop"), ("zero-shot", "zero-shot"), ("linear-probe-1", "linear-probe")):
            expected = result["summary"]["eurosat"][name][accuracy]
            path = folder / "runs" / f"{stem}.{system}.trec"
            assert path.exists() == (expected is not None)
            if expected is not None:
                found = means(per_query(qrels, read_run(path), ["precision@1"]))
                assert found["precision@1"] == pytest.approx(expected)
    first = (folder / "page.html").read_text()
    for words in ("eurosat", "paints", "coop", "data:image/", "blue"):
        assert words in first
    assert "the mean of" not in first

    before = {path.name: path.read_bytes() for path in (folder / "runs").glob("*.*")}
    script.main([*arguments(folder, protocol=protocol, seeds="1,2"), *beside])  # goes on, and the page is of all
    after = {path.name: path.read_bytes() for path in (folder / "runs").glob("*.*")}
    assert before.items() <= after.items() and any(name.endswith("coop-2.trec") for name in after)
    assert "coop: the mean of 2 runs, of which coop-1 is shown" in (folder / "page.html").read_text()

    other = arguments(folder, protocol=protocol, seeds="1", out=str(folder / "other.json"))
    assert "page.html exists already" in refusal(script, [*other, *beside])
    assert "holds the runs of another result" in refusal(script, [*other, *beside[:2]])
    assert "pass --runs as well" in refusal(script, [*other, *beside[2:]])


def test_results_without_runs_have_no_section(script: Any, folder: Path) -> None:
    script.main(arguments(folder, datasets="eurosat", seeds="1"))
    beside = ["--runs", str(folder / "runs"), "--report", str(folder / "page.html")]
    script.main([*arguments(folder, seeds="1"), *beside])
    page = (folder / "page.html").read_text()
    assert "paints, base classes" in page and "eurosat, base classes" not in page


def test_an_interrupted_run_keeps_what_is_done(script: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = script.tune

    def tune(clip: Clip, data: Any, settings: Any, **options: Any) -> Any:
        if settings.seed == 2:
            raise KeyboardInterrupt
        return real(clip, data, settings, **options)

    monkeypatch.setattr(script, "tune", tune)
    with pytest.raises(KeyboardInterrupt):
        script.main(arguments(folder, protocol="few-shot"))
    result = json.loads((folder / "out.json").read_text())
    assert list(result["datasets"]["eurosat"]["scores"]["coop"]) == ["1"]
    assert set(result["datasets"]["eurosat"]["scores"]["zero-shot"]) == {"accuracy", "mean_per_class", "ece"}
    monkeypatch.setattr(script, "tune", real)
    script.main(arguments(folder, protocol="few-shot"))
    whole = json.loads((folder / "out.json").read_text())
    assert list(whole["datasets"]["eurosat"]["scores"]["coop"]) == ["1", "2"]
    assert whole["datasets"]["eurosat"]["scores"]["coop"]["1"] == result["datasets"]["eurosat"]["scores"]["coop"]["1"]
    assert whole["datasets"]["eurosat"]["runs"]["coop, seed 1"]["training"]["images"] == 8


def test_base_classes_are_the_first_labels(script: Any, folder: Path) -> None:
    data = script.load("eurosat", folder)
    assert data.classes == tuple(COLOURS)
    few = script.with_shots(data, True, 2, 1)
    settings = script.Settings.of(method="coop", epochs=1, shots=2, seed=1, calibrate=False)
    classifier = script.tune(script.load_clip(), few, settings, base_only=True, cache=folder / "cache")
    assert classifier.classes == ("red", "blue")


def refusal(script: Any, words: list[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        script.main(words)
    return str(stopped.value.code)


def test_a_result_is_never_mixed_or_overwritten_silently(script: Any, folder: Path) -> None:
    small = {"datasets": "eurosat", "seeds": "1"}
    script.main(arguments(folder, **small))
    before = (folder / "out.json").read_bytes()
    message = refusal(script, arguments(folder, **small, shots="1"))
    assert message.endswith("out.json was made with another settings; choose another --out or pass --overwrite")
    assert "another protocol" in refusal(script, arguments(folder, **small, protocol="few-shot"))
    (folder / "eurosat" / "2750" / "red" / "train0.png").rename(folder / "eurosat" / "2750" / "red" / "x.png")
    listing = folder / "eurosat" / LAYOUTS["eurosat"].listing
    listing.write_text(listing.read_text().replace("red/train0.png", "red/x.png"))
    assert "eurosat has other pictures or classes than in the result file" in refusal(
        script, arguments(folder, **small)
    )
    assert (folder / "out.json").read_bytes() == before
    script.main([*arguments(folder, **small, shots="1"), "--overwrite"])
    assert json.loads((folder / "out.json").read_text())["settings"]["shots"] == 1
    (folder / "other.json").write_text("[1]")
    assert "made with another" in refusal(script, arguments(folder, **small, out=str(folder / "other.json")))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"method": "coop,adapter"},
            "error: --method must be coop, cocoop, kgcoop, prograd, tcp,",
        ),
        ({"datasets": "eurosat,cifar"}, "error: there is no data set 'cifar'; expected one of imagenet,"),
        ({"datasets": "eurosat,eurosat"}, "error: expected data sets of different names, got eurosat, eurosat"),
        ({"datasets": "dtd"}, "split_zhou_DescribableTextures.json does not exist"),
        ({"seeds": "1,two"}, "error: --seeds: expected a whole number, got 'two'"),
        ({"baselines": "lora"}, "error: --baselines: expected clip-lora or 2sfs, or both"),
        ({"shots": "0"}, "error: --shots must be 1 or more, got 0"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_tuned(
    script: Any, folder: Path, changed: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "tune", lambda *_, **__: pytest.fail("tuned"))
    found = refusal(script, arguments(folder, **changed))
    assert message in found and "\n" not in found
    assert not (folder / "out.json").exists()


def test_data_sets_need_their_folder(script: Any, folder: Path) -> None:
    words = ["--datasets", "dtd", "--out", str(folder / "out.json")]
    assert refusal(script, words) == "error: dtd needs --data-dir: the folder that holds dtd"
