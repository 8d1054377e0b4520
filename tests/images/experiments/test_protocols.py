"""Protocols on a model that sees nothing but colour, so that every figure is known beforehand."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from multimodal.classifier import PromptClassifier
from multimodal.data.images import ImageData, Picture, load_images
from multimodal.experiments.protocols import EvaluationProtocol, evaluate, over_seeds, table
from multimodal.experiments.systems import Classifier
from multimodal.training.settings import Settings
from retrieval_prompts.errors import DataWarning, UserError
from retrieval_prompts.evaluation.classification import linear_probe as probe

COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0), "white": (255, 255, 255)}
PER_CLASS = 4


class ColourClip:
    """Images: their mean colour, unit length. Texts: the colour whose name they hold."""

    def __init__(self) -> None:
        self.dimension, self.scale, self.name, self.pretrained = 3, 20.0, "colours", None
        self.title = "colours"
        self.mean, self.std, self.image_size, self.device = (0.0,) * 3, (1.0,) * 3, (2, 2), torch.device("cpu")
        self.image_fingerprint = self.fingerprint = "0" * 64
        rows = lambda names, *_: SimpleNamespace(ids=[(name,) for name in names])  # noqa: E731
        self.text = SimpleNamespace(rows=rows, tokens=SimpleNamespace(unknown=None))
        self.texts: list[str] = []

    @staticmethod
    def preprocess(image: Image.Image) -> Tensor:
        return torch.from_numpy(np.array(image.resize((2, 2)))).permute(2, 0, 1).float()

    def encode_images(self, pixels: Tensor) -> Tensor:
        return F.normalize(pixels.mean(dim=(2, 3)), dim=-1)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        self.texts += texts
        colours = [next(colour for name, colour in COLOURS.items() if name in text) for text in texts]
        return F.normalize(torch.tensor(colours).float(), dim=-1)


class Tuned:
    """Says `instead[name]` where zero-shot would say `name`."""

    def __init__(self, clip: Any, classes: Sequence[str], seed: int = 1, **given: Any) -> None:
        self.instead: dict[str, str] = given.pop("instead", {})
        self.prompts_images: bool = given.pop("prompts_images", False)
        self.clip, self.classes, self.settings = clip, tuple(classes), Settings(seed=seed, **{"shots": 2, **given})
        self.training, self.answer = {"dataset": "paints"}, None
        self.seen: list[Any] = []

    def without_head(self) -> Tuned:
        return self

    def logits(self, images: Any, classes: Sequence[str] | None = None, *, cache: Path | None = None) -> np.ndarray:
        self.seen.append(images)
        if self.prompts_images:
            images = torch.stack(
                [self.clip.encode_images(ColourClip.preprocess(image.load())[None])[0] for image in images]
            )
        said = [self.instead.get(name, name) for name in classes or self.classes]
        return (self.clip.scale * images @ self.clip.encode_texts(said).T).numpy()


@pytest.fixture
def clip() -> Any:
    return ColourClip()


@pytest.fixture
def data(tmp_path: Path) -> ImageData:
    """4 pictures a class and split, of the colour that the class is called, but for a green one called red in test."""
    return paints(tmp_path / "paints", ("test", "red", 0, "green"))


def paints(root: Path, *odd: tuple[str, str, int, str]) -> ImageData:
    for split in ("train", "test"):
        for name in COLOURS:
            (root / split / name).mkdir(parents=True)
            for number in range(PER_CLASS):
                colour = next((row[3] for row in odd if row[:3] == (split, name, number)), name)
                Image.new("RGB", (3 + number, 3), COLOURS[colour]).save(root / split / name / f"{number}.png")
    return load_images(root)


def test_few_shot(clip: Any, data: ImageData, tmp_path: Path) -> None:
    seeds = [Tuned(clip, data.classes), Tuned(clip, data.classes, 2, instead={"red": "green", "green": "red"})]
    result = evaluate("few-shot", data, seeds, cache=tmp_path / "cache")
    written = result.to_json()
    assert json.loads(json.dumps(written)) == written
    assert (result.dataset, result.model, result.protocol) == ("paints", "colours", "few-shot")
    systems = result.systems
    assert list(systems) == ["zero-shot", "zero-shot-ensemble", "tuned", "linear-probe"]
    for name in ("zero-shot", "zero-shot-ensemble"):
        assert set(systems[name]) == {"accuracy", "mean_per_class", "ece"}
        assert systems[name]["accuracy"] == systems[name]["mean_per_class"] == 15 / 16
    # Seed 2 is right on the blue and white ones, and on the green one that is called red
    tuned = systems["tuned"]
    assert (tuned["accuracy"], tuned["seeds"]) == ((15 / 16 + 9 / 16) / 2, 2)
    assert tuned["per_seed"]["1"]["accuracy"] == 15 / 16 and tuned["per_seed"]["2"]["accuracy"] == 9 / 16
    assert tuned["std"]["accuracy"] == pytest.approx(statistics.stdev([15 / 16, 9 / 16]))
    assert tuned["per_seed"]["1"] == pytest.approx(systems["zero-shot"], abs=1e-6)
    assert tuned["ece"] == pytest.approx(np.mean([scores["ece"] for scores in tuned["per_seed"].values()]))
    assert systems["linear-probe"]["accuracy"] == 15 / 16 and systems["linear-probe"]["std"]["accuracy"] == 0
    assert result.images_encoded == 16  # 15 different pictures in test; of train, whose others are the same, red 0
    assert set(result.seconds) == {"encode images", "zero-shot", "tuned", "linear-probe"}
    assert result.settings["images"] == 16 and result.settings["seeds"] == [1, 2]
    assert result.settings["prompts"]["shots"] == 2 and "seed" not in result.settings["prompts"]


def test_ece_by_hand(clip: Any, data: ImageData, tmp_path: Path) -> None:
    """Coloured pictures: logits 20 and, for white, 20/√3; white ones: 20 and three times 20/√3."""
    zero_shot = evaluate("few-shot", data, clip=clip, cache=tmp_path).systems["zero-shot"]
    coloured = np.exp(20) / (np.exp(20) + np.exp(20 / 3**0.5) + 2)
    white = np.exp(20) / (np.exp(20) + 3 * np.exp(20 / 3**0.5))
    assert zero_shot["ece"] == pytest.approx(abs(15 - 12 * coloured - 4 * white) / 16, abs=1e-6)


def test_nothing_is_encoded_twice(clip: Any, data: ImageData, tmp_path: Path) -> None:
    tuned = Tuned(clip, data.classes)
    first = evaluate("few-shot", data, [tuned], cache=tmp_path)
    again = evaluate("few-shot", data, [tuned], cache=tmp_path)
    assert first.images_encoded > 0 and again.images_encoded == 0
    assert again.systems == first.systems


def test_the_order_of_the_prompts_classes_and_their_underscores_do_not_matter(
    clip: Any, data: ImageData, tmp_path: Path
) -> None:
    names = ("White", "red_", "blue", "green")
    tuned = Tuned(clip, names, instead={"White": "white", "red_": "red"})
    assert evaluate("few-shot", data, [tuned], cache=tmp_path).systems["tuned"]["accuracy"] == 15 / 16
    tuned = Tuned(clip, ("red", "green"))
    assert evaluate("base-to-new", data, [tuned], cache=tmp_path).systems["tuned"]["base"] == 7 / 8


def test_base_to_new(clip: Any, data: ImageData, tmp_path: Path) -> None:
    swapped = {"white": "blue", "blue": "white"}
    seeds = [Tuned(clip, ("green", "red")), Tuned(clip, ("green", "red"), 2, instead=swapped)]
    systems = evaluate("base-to-new", data, seeds, cache=tmp_path).systems
    metrics = {"base", "new", "harmonic_mean", "ece_base", "ece_new", "mean_per_class_base", "mean_per_class_new"}
    assert set(systems["zero-shot"]) == metrics
    assert (systems["zero-shot"]["base"], systems["zero-shot"]["new"]) == (7 / 8, 1)
    assert systems["zero-shot"]["harmonic_mean"] == pytest.approx(2 * (7 / 8) / (15 / 8))
    tuned = systems["tuned"]
    assert set(tuned) == metrics | {"seeds", "std", "per_seed"}
    assert (tuned["base"], tuned["new"]) == (7 / 8, 1 / 2)  # new: all right, none right
    assert tuned["per_seed"]["2"]["harmonic_mean"] == 0
    assert tuned["harmonic_mean"] == pytest.approx(2 * (7 / 16) / (11 / 8))  # of the means
    probe = systems["linear-probe"]
    assert probe["base"] == 7 / 8
    assert [probe[name] for name in ("new", "harmonic_mean", "ece_new", "mean_per_class_new")] == [None] * 4
    assert probe["std"]["new"] is None and probe["std"]["base"] == 0
    assert systems == json.loads(json.dumps(systems))


def test_base_to_new_without_prompts_takes_the_halves_of_the_sorted_classes(
    clip: Any, data: ImageData, tmp_path: Path
) -> None:
    systems = evaluate("base-to-new", data, clip=clip, cache=tmp_path).systems
    assert list(systems) == ["zero-shot", "zero-shot-ensemble"]
    assert (systems["zero-shot"]["base"], systems["zero-shot"]["new"]) == (1, 7 / 8)


def test_class_specific_prompts_have_no_answer_for_new_classes(clip: Any, data: ImageData, tmp_path: Path) -> None:
    tuned = Tuned(clip, ("green", "red"), class_specific=True)
    systems = evaluate("base-to-new", data, [tuned], cache=tmp_path).systems
    assert systems["tuned"]["base"] == 7 / 8
    assert systems["tuned"]["new"] is systems["tuned"]["harmonic_mean"] is systems["tuned"]["ece_new"] is None


def test_prompts_in_the_image_tower_get_pictures(clip: Any, data: ImageData, tmp_path: Path) -> None:
    tuned = Tuned(clip, data.classes, prompts_images=True)
    plain = evaluate("few-shot", data, [Tuned(clip, data.classes)], cache=tmp_path)
    result = evaluate("few-shot", data, [tuned], cache=tmp_path)
    assert isinstance(tuned.seen[0][0], Picture) and len(tuned.seen[0]) == 16
    assert result.systems["tuned"]["accuracy"] == plain.systems["tuned"]["accuracy"]
    assert result.images_encoded == 16  # the features of all others were in the cache


def test_the_probe_learns_from_the_few_shots_of_train_alone(
    clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, list[int]]] = []
    real = probe.linear_probe

    def record(features: np.ndarray, labels: np.ndarray, classes: int) -> probe.Probe:
        calls.append((classes, sorted(labels.tolist())))
        assert not np.allclose(features @ [0, 0, 1], 1), "the test's colours"
        return real(features, labels, classes)

    monkeypatch.setattr(probe, "linear_probe", record)
    odd = [("test", name, number, "blue") for name in COLOURS for number in range(PER_CLASS)]
    data = paints(tmp_path / "paints", *odd)
    evaluate("few-shot", data, [Tuned(clip, data.classes, 1), Tuned(clip, data.classes, 2)], cache=tmp_path / "cache")
    evaluate("base-to-new", data, [Tuned(clip, ("green", "red"), shots=3)], cache=tmp_path / "cache")
    assert calls == [(4, [0, 0, 1, 1, 2, 2, 3, 3])] * 2 + [(2, [0, 0, 0, 1, 1, 1])]


def test_cross_dataset(clip: Any, data: ImageData, tmp_path: Path) -> None:
    result = evaluate("cross-dataset", data, [Tuned(clip, ("dog", "cat"))], cache=tmp_path)
    assert list(result.systems) == ["zero-shot", "zero-shot-ensemble", "tuned"]
    assert result.systems["tuned"]["accuracy"] == 15 / 16
    assert result.settings["trained_on"] == "paints"
    with pytest.warns(DataWarning, match="has the classes that the prompts were tuned on"):
        evaluate("cross-dataset", data, [Tuned(clip, data.classes)], cache=tmp_path)


def test_domain(clip: Any, data: ImageData, tmp_path: Path) -> None:
    odd = [("train", "red", number, "green") for number in range(PER_CLASS)]
    odd += [("train", "green", number, "red") for number in range(PER_CLASS)]
    source = paints(tmp_path / "source", *odd)
    tuned = [Tuned(clip, source.classes)]
    assert "linear-probe" not in evaluate("domain", data, tuned, cache=tmp_path).systems
    systems = evaluate(EvaluationProtocol("domain", source=source), data, tuned, cache=tmp_path).systems
    assert (systems["tuned"]["accuracy"], systems["linear-probe"]["accuracy"]) == (15 / 16, 9 / 16)


def test_the_template_is_that_of_the_data_set_unless_the_prompts_have_their_own(clip: Any, tmp_path: Path) -> None:
    pets = paints(tmp_path / "oxford_pets")

    def texts(**options: Any) -> str:
        clip.texts.clear()
        classifiers = options.pop("classifiers", ())
        how = EvaluationProtocol(systems=["zero-shot"], **options)
        result = evaluate(how, pets, classifiers, clip=clip, cache=tmp_path / "cache")
        assert list(result.systems) == ["zero-shot"]
        assert clip.texts[0] == result.settings["template"].replace("{}", "blue")
        return clip.texts[0]

    assert texts() == texts(classifiers=[Tuned(clip, pets.classes)]) == "a photo of a blue, a type of pet."
    assert texts(classifiers=[Tuned(clip, pets.classes, template="my {}")]) == "my blue"
    assert texts(template="{}!", classifiers=[Tuned(clip, pets.classes, template="my {}")]) == "blue!"


def test_pictures_that_cannot_be_read_are_left_out_and_counted(clip: Any, data: ImageData, tmp_path: Path) -> None:
    (tmp_path / "paints" / "test" / "red" / "0.png").write_bytes(b"no picture")  # the green one
    with pytest.warns(DataWarning, match="1 of 16 pictures are skipped"):
        result = evaluate("few-shot", data, [Tuned(clip, data.classes)], cache=tmp_path / "cache")
    assert (result.settings["images"], result.settings["images_skipped"]) == (15, 1)
    assert [result.systems[name]["accuracy"] for name in ("zero-shot", "tuned", "linear-probe")] == [1, 1, 1]


def test_what_does_not_belong_together_is_refused(clip: Any, data: ImageData, tmp_path: Path) -> None:
    def refused(message: str, protocol: str, *classifiers: Classifier, **options: Any) -> None:
        with pytest.raises(UserError, match=message):
            evaluate(EvaluationProtocol(protocol, **options), data, classifiers, cache=tmp_path)

    all_classes, base = Tuned(clip, data.classes), Tuned(clip, ("green", "red"))
    refused("there is no protocol 'zero'; the protocols are few-shot, base-to-new,", "zero", all_classes)
    refused("there is no system best; the systems are zero-shot,", "few-shot", all_classes, systems=["best"])
    refused("expected prompts or a model to evaluate, got neither", "few-shot")
    refused("paints has no split 'dev'; it has train, test", "few-shot", all_classes, split="dev")
    refused("few-shot needs .* 2 and 4 classes differ in blue, white; see --protocol base-to-new", "few-shot", base)
    refused("differ in pink, white", "domain", Tuned(clip, ("blue", "green", "red", "pink")))
    refused("two of its 4 classes or more on either side; got 4", "base-to-new", all_classes)
    refused("got 2 that they were tuned on", "base-to-new", Tuned(clip, ("dog", "cat")))
    refused("expected prompts of different seeds, got the seeds 1, 1", "few-shot", all_classes, all_classes)
    refused("differ in shots", "few-shot", all_classes, Tuned(clip, data.classes, 2, shots=3))
    refused("the same model and the same classes", "few-shot", all_classes, Tuned(clip, data.classes[::-1], 2))


def test_a_part_without_test_pictures_is_refused(clip: Any, tmp_path: Path) -> None:
    data = paints(tmp_path / "paints")
    test = data.splits["test"]
    data.splits["test"] = test.take(np.flatnonzero(test.labels < 2))
    with pytest.raises(UserError, match="test has no picture of the new classes of paints"):
        evaluate("base-to-new", data, [Tuned(clip, ("blue", "green"))], cache=tmp_path / "cache")


def test_over_seeds() -> None:
    one = over_seeds({"1": {"accuracy": 0.5, "ece": None}})
    assert one == {
        "accuracy": 0.5,
        "ece": None,
        "seeds": 1,
        "std": None,
        "per_seed": {"1": {"accuracy": 0.5, "ece": None}},
    }
    three = over_seeds({str(seed): {"accuracy": value} for seed, value in enumerate((0.1, 0.2, 0.6))})
    assert three["accuracy"] == pytest.approx(0.3) and three["std"]["accuracy"] == pytest.approx(0.07**0.5)


def test_the_table(clip: Any, data: ImageData, tmp_path: Path) -> None:
    from rich.console import Console

    seeds = [Tuned(clip, ("green", "red"), seed) for seed in (1, 2)]
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table(evaluate("base-to-new", data, seeds, cache=tmp_path)))
    lines = [line.split() for line in capture.get().splitlines()]
    assert ["paints,", "base-to-new"] in lines
    row = next(line for line in lines if "linear-probe" in line)
    assert "87.5±0.0" in row and row.count("-") == 3
    assert "93.3" in next(line for line in lines if "zero-shot" in line)


def test_the_real_classifier_fits() -> None:
    def accepts(classifier: Classifier) -> None: ...

    accepts(PromptClassifier.__new__(PromptClassifier))  # for mypy
