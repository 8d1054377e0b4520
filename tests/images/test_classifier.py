"""PromptClassifier: what is trained and what stays, what predictions depend on, folders, export, bad input."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import tiny_clip
import torch
from tiny_clip import DIMENSION, NAMES, OTHERS, SCALE, TRAIN
from torch.nn import functional as F
from toy_clips import TOYS, shared_tokenizer

from multimodal.classifier import PromptClassifier
from multimodal.data.images import ImageData
from multimodal.prompts.methods import method
from multimodal.prompts.settings import METHODS
from multimodal.towers.clip import Clip, load_clip
from multimodal.training.settings import Settings
from multimodal.vectors import prediction
from multimodal.vectors.image_data import CachedImages
from retrieval_prompts.errors import DataWarning, UserError
from retrieval_prompts.evaluation.classification.scores import fit_temperature
from retrieval_prompts.files import sealed
from retrieval_prompts.training.loop import Step
from retrieval_prompts.vectors.index import Index

QUICK: dict[str, Any] = {"epochs": 2, "learning_rate": 0.05, "batch_size": 8, "calibrate": False, "head": "none"}
PROMPT_IMAGES = ("vpt", "maple", "promptsrc")
# Pictures that are encoded in other batches: half precision rounds a coordinate up or down. Logits are SCALE cosines.
ROUNDING = SCALE * 5e-4
EXACT = SCALE * 1e-6  # the same features in matrix products of other sizes


def shots(data: ImageData, split: str = "train") -> tuple[list[Any], list[str]]:
    part = data.split(split)
    return part.pictures, [data.classes[label] for label in part.labels]


def of(clip: Clip, name: str, **given: Any) -> PromptClassifier:
    """A new classifier of a method; one that needs a teacher learns from the same model."""
    taught = {"teacher": clip.name} if name == "promptkd" else {}
    return PromptClassifier(clip, method=name, **{**QUICK, **taught, **given})


@pytest.fixture(scope="module")
def fitted(tiny_model: Clip, colours: ImageData) -> dict[str, PromptClassifier]:
    """One of each method: no test may change it."""
    return {name: of(tiny_model, name).fit(*shots(colours), colours.classes) for name in METHODS}


@pytest.fixture(scope="module")
def coop(fitted: dict[str, PromptClassifier]) -> PromptClassifier:
    return fitted["coop"]


def at(strength: float, classifier: PromptClassifier, **given: Any) -> PromptClassifier:
    """The same prompts at another strength."""
    other = PromptClassifier(classifier.clip, classifier.settings)
    other._method, other.classes = classifier.method, classifier.classes
    other.strength, other.temperature = strength, given.get("temperature", classifier.temperature)
    return other


def frozen_images(clip: Clip, pictures: Sequence[Any]) -> torch.Tensor:
    """As the cache keeps them: in half precision, of unit length."""
    vectors = torch.cat([clip.encode_images(clip.preprocess(picture.load())[None]) for picture in pictures])
    return F.normalize(vectors.half().float(), dim=-1)


# --- every method, end to end


@pytest.mark.parametrize("name", METHODS)
def test_fit_and_predict(fitted: dict[str, PromptClassifier], colours: ImageData, name: str) -> None:
    classifier = fitted[name]
    pictures, labels = shots(colours, "test")
    probabilities = classifier.predict_proba(pictures)
    assert probabilities.shape == (8, 4) and np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert np.allclose(probabilities, torch.from_numpy(classifier.logits(pictures)).softmax(dim=1), atol=1e-6)
    predicted = classifier.predict(pictures)
    assert predicted.tolist() == [colours.classes[at] for at in probabilities.argmax(axis=1)]
    assert classifier.score(pictures, labels) == np.mean(predicted == np.array(labels))
    training = {"images": 4 * TRAIN, "images_encoded": classifier.training["images_encoded"]}
    assert {key: value for key, value in classifier.training.items() if key != "right"} == training
    assert ("right" in classifier.training) == (name == "promptkd")
    zero_shot = at(0, classifier).logits(pictures)
    assert np.abs(classifier.logits(pictures) - zero_shot).max() > 100 * EXACT, "it learned something"


def test_only_prompts_are_trained(tiny_model: Clip, colours: ImageData) -> None:
    before = {name: value.clone() for name, value in tiny_model.model.state_dict().items()}
    for name in METHODS:
        classifier = of(tiny_model, name, epochs=1, calibrate=True)
        classifier.fit(*shots(colours))
        assert any(parameter.grad is not None for parameter in classifier.method.prompter.parameters())
        assert all(parameter.grad is None for parameter in tiny_model.model.parameters()), name
        after = tiny_model.model.state_dict()
        assert all(torch.equal(value, after[key]) for key, value in before.items()), name


def test_it_learns_colours_that_the_model_cannot_name(tiny_model: Clip, colours: ImageData) -> None:
    pictures, labels = shots(colours)
    losses: list[float] = []
    settings = Settings.of(method="deep", learning_rate=0.05, epochs=40, calibrate=False)
    classifier = PromptClassifier(tiny_model, settings)
    classifier.fit(pictures, labels, on_step=lambda step, total: losses.append(step.loss))
    assert losses[-1] < 0.5 * losses[0]
    assert classifier.score(pictures, labels) > at(0, classifier).score(pictures, labels)


@pytest.mark.filterwarnings("ignore:.*words that the model does not know")  # a vocabulary of a few words
@pytest.mark.parametrize("name", ["coca", "not causal", "siglip", "bert, mean", "last"])
def test_other_text_towers(colours: ImageData, name: str) -> None:
    toy = Clip(TOYS[name].model(), open_clip.image_transform(16, is_train=False), shared_tokenizer(name), name)
    pictures, labels = shots(colours)
    losses: list[float] = []
    classifier = PromptClassifier(toy, **{**QUICK, "epochs": 8})
    classifier.fit(pictures, labels, on_step=lambda step, total: losses.append(step.loss))
    assert np.mean(losses[-2:]) < np.mean(losses[:2])
    assert classifier.way() == TOYS[name].way
    assert classifier.predict_proba(pictures, OTHERS).shape == (12, 4)
    if TOYS[name].hugging_face:
        for method in ("deep", "tcp"):
            with pytest.raises(UserError, match=f"{method} p.* use coop"):
                PromptClassifier(toy, method=method).fit(pictures, labels)


# --- strength


@pytest.mark.parametrize("name", METHODS)
def test_strength_0_is_the_frozen_model(fitted: dict[str, PromptClassifier], colours: ImageData, name: str) -> None:
    classifier, clip = at(0, fitted[name]), fitted[name].clip
    pictures, _ = shots(colours, "test")
    texts = clip.encode_texts([f"a photo of a {name}." for name in ("blue", "dark green", "orange", "white")])
    images = CachedImages(clip, pictures, 1, None).features(np.arange(8), np.zeros(8, dtype=np.int64))
    assert torch.allclose(images, frozen_images(clip, pictures), atol=1e-3)
    assert np.array_equal(classifier.logits(pictures), (clip.scale * images @ texts.T).numpy()), "bit for bit"
    assert np.array_equal(classifier.logits(images), classifier.logits(pictures)), "features serve all methods at 0"


@pytest.mark.parametrize("name", ["coop", "deep", "maple"])
def test_strength_between(fitted: dict[str, PromptClassifier], colours: ImageData, name: str) -> None:
    pictures, _ = shots(colours, "test")
    frozen, tuned = (at(strength, fitted[name]).class_vectors() for strength in (0, 1))
    for strength in (0.25, 0.5):
        classifier = at(strength, fitted[name])
        found = classifier.class_vectors()
        assert torch.allclose(found, F.normalize((1 - strength) * frozen + strength * tuned, dim=-1), atol=1e-6)
        assert torch.allclose(found.norm(dim=1), torch.ones(4))
        if name != "maple":
            features = torch.from_numpy(np.eye(DIMENSION, dtype=np.float32))
            assert np.allclose(classifier.logits(features), SCALE * found.T, atol=EXACT)
        else:
            ends = [at(end, fitted[name]).logits(pictures) for end in (0, 1)]
            assert not any(np.allclose(classifier.logits(pictures), end, atol=EXACT) for end in ends)
    near = at(1 - 1e-6, fitted[name]).logits(pictures)
    assert np.allclose(near, at(1, fitted[name]).logits(pictures), atol=100 * EXACT), "and goes over into both ends"
    near = at(1e-6, fitted[name]).logits(pictures)
    assert np.allclose(near, at(0, fitted[name]).logits(pictures), atol=100 * EXACT)


# --- folders


@pytest.mark.parametrize("name", METHODS)
def test_a_folder_gives_the_same_classifier(
    fitted: dict[str, PromptClassifier], colours: ImageData, tmp_path: Path, name: str
) -> None:
    classifier = at(1, fitted[name], temperature=1.5)
    classifier.training = fitted[name].training
    classifier.save(tmp_path / "prompts")
    again = PromptClassifier.load(tmp_path / "prompts", fitted[name].clip)
    pictures, _ = shots(colours, "test")
    assert np.array_equal(again.logits(pictures), classifier.logits(pictures))
    assert np.array_equal(again.logits(pictures, OTHERS), classifier.logits(pictures, OTHERS))
    assert (again.classes, again.settings, again.temperature) == (NAMES, classifier.settings, 1.5)
    kept = {key: value for key, value in classifier.training.items() if key != "images_encoded"}
    assert (again.strength, again.training) == (1.0, kept)
    half = PromptClassifier.load(tmp_path / "prompts", fitted[name].clip, strength=0.5)
    assert np.array_equal(half.logits(pictures), at(0.5, classifier).logits(pictures))
    half.save(tmp_path / "half")
    assert PromptClassifier.load(tmp_path / "half", fitted[name].clip).strength == 0.5


def test_a_folder_names_its_model(
    coop: PromptClassifier, clip_folder: Path, colours: ImageData, tmp_path: Path
) -> None:
    coop.save(tmp_path / "prompts")
    again = PromptClassifier.load(tmp_path / "prompts", device="cpu")
    assert again.clip.name == f"local-dir:{clip_folder}"
    features = frozen_images(again.clip, shots(colours)[0])
    assert np.array_equal(again.logits(features), coop.logits(features))
    moved = shutil.copytree(clip_folder, tmp_path / "moved")
    assert np.array_equal(
        PromptClassifier.load(tmp_path / "prompts", str(moved)).logits(features), coop.logits(features)
    )
    with pytest.raises(UserError, match="has its own weights; leave out --pretrained openai"):
        PromptClassifier.load(tmp_path / "prompts", pretrained="openai")


def test_another_model_is_refused(coop: PromptClassifier, tmp_path: Path) -> None:
    coop.save(tmp_path / "prompts")
    other = load_clip(str(tiny_clip.write_clip(tmp_path / "other", seed=1)), device="cpu")
    message = r"prompts was tuned on local-dir:.*tiny \(fingerprint \w{8}\), got local-dir:.*other \(\w{8}\); load that"
    with pytest.raises(UserError, match=message) as error:
        PromptClassifier.load(tmp_path / "prompts", other)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=message):
        PromptClassifier.load(tmp_path / "prompts", str(tmp_path / "other"))


def test_settings_that_do_not_fit_the_weights(coop: PromptClassifier, tmp_path: Path) -> None:
    coop.save(tmp_path / "prompts")
    path = tmp_path / "prompts" / "prompt.json"
    whole = json.loads(path.read_text())
    for changed, message in (
        ({"context": 5}, "prompts does not fit its own settings .*size mismatch.*; restore or train it again"),
        ({"method": "deep", "depth": 2}, "prompts does not fit its own settings .*; restore or train it again"),
        ({"colour": "red"}, "prompts does not fit its own settings .*colour.*; restore or train it again"),
        ({"method": "copo"}, "got 'copo'"),
    ):
        path.write_text(json.dumps(sealed({**whole, "settings": {**whole["settings"], **changed}})))
        with pytest.raises(UserError, match=message) as error:
            PromptClassifier.load(tmp_path / "prompts", coop.clip)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("strength", [-0.1, 1.5, float("nan")])
def test_strengths_that_cannot_be(coop: PromptClassifier, tmp_path: Path, strength: float) -> None:
    coop.save(tmp_path / "prompts")
    with pytest.raises(UserError, match=rf"strength must be from 0 .* to 1 .*, got {strength}"):
        PromptClassifier.load(tmp_path / "prompts", coop.clip, strength=strength)


# --- other classes


@pytest.mark.parametrize("name", METHODS)
def test_prompts_serve_other_classes(fitted: dict[str, PromptClassifier], colours: ImageData, name: str) -> None:
    classifier, (pictures, _) = fitted[name], shots(colours, "test")
    own = classifier.logits(pictures)
    assert np.allclose(classifier.logits(pictures, NAMES[::-1]), own[:, ::-1], atol=10 * EXACT), "in another order"
    assert np.allclose(classifier.logits(pictures, NAMES[1:3]), own[:, 1:3], atol=10 * EXACT), "without some"
    both = classifier.logits(pictures, (*OTHERS, *NAMES))
    assert both.shape == (8, 8) and np.allclose(both[:, 4:], own, atol=10 * EXACT), "with others"
    assert set(classifier.predict(pictures, OTHERS)) <= set(OTHERS)
    assert classifier.classes == NAMES


@pytest.mark.parametrize("name", ["coop", "kgcoop", "prograd"])
def test_class_specific_prompts_serve_their_own(
    tiny_model: Clip, colours: ImageData, tmp_path: Path, name: str
) -> None:
    settings = {**QUICK, "class_specific": True, "init": "gaussian"}
    classifier = PromptClassifier(tiny_model, method=name, **settings).fit(*shots(colours))
    pictures, _ = shots(colours, "test")
    classifier.save(tmp_path / "prompts")
    again = PromptClassifier.load(tmp_path / "prompts", tiny_model)
    assert np.array_equal(again.logits(pictures), classifier.logits(pictures))
    assert np.array_equal(again.logits(pictures, NAMES), classifier.logits(pictures)), "the same list may be named"
    assert again.way() == "truncated", "no prefix is shared"
    for names in (OTHERS, NAMES[::-1], NAMES[:3]):
        for ask in (again.predict, again.predict_proba, again.logits):
            with pytest.raises(UserError, match=r"^these prompts are class-specific: .* \(without --class-specific\)"):
                ask(pictures, names)
        with pytest.raises(UserError, match=r"^these prompts are class-specific"):
            again.export(tmp_path / "export", names)
    assert not (tmp_path / "export").exists()


def test_only_class_specific_folders_grow_with_the_classes(tiny_model: Clip, tmp_path: Path) -> None:
    pictures = [tiny_clip.write_picture(tmp_path / f"{name}.png", name) for name in (*NAMES, *OTHERS)]

    def size(count: int, name: str, **given: Any) -> int:
        classifier = of(tiny_model, name, epochs=1, **given)
        folder = tmp_path / f"{count}-{name}-{'-'.join(map(str, given.values()))}"
        classifier.fit(pictures[:count], (*NAMES, *OTHERS)[:count]).save(folder)
        return (folder / "prompt.safetensors").stat().st_size

    for name in METHODS:
        texts = 6 * DIMENSION * 4 if name == "promptkd" else 0  # of the teacher
        assert size(8, name) - size(2, name) == pytest.approx(texts, abs=10 if texts else 0), name
    own = [size(count, "coop", class_specific=True) for count in (2, 8)]
    assert own[1] - own[0] == pytest.approx(6 * 4 * tiny_clip.WIDTH * 4, abs=50)


# --- what predictions do not depend on


@pytest.mark.parametrize("name", METHODS)
def test_predictions_do_not_depend_on_what_is_beside(
    fitted: dict[str, PromptClassifier],
    colours: ImageData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    classifier = fitted[name]
    pictures = [*shots(colours, "test")[0], *shots(colours)[0]]
    together = classifier.logits(pictures)
    order = np.random.default_rng(0).permutation(len(pictures))
    shuffled = classifier.logits([pictures[at] for at in order])
    assert np.allclose(shuffled, together[order], atol=10 * EXACT)
    monkeypatch.setattr(prediction, "BATCH", 3)
    assert np.allclose(classifier.logits(pictures), together, atol=10 * EXACT)
    for position in (0, 13):  # encoded alone
        alone = classifier.logits([pictures[position]], cache=tmp_path / f"{position}")
        assert np.allclose(alone[0], together[position], atol=ROUNDING)


def test_no_images(coop: PromptClassifier) -> None:
    assert coop.logits([]).shape == coop.predict_proba([]).shape == (0, 4)
    assert coop.predict(np.zeros((0, DIMENSION))).tolist() == []


def test_the_same_seed_gives_the_same_prompts(tiny_model: Clip, colours: ImageData) -> None:
    def vectors(**given: Any) -> torch.Tensor:
        return PromptClassifier(tiny_model, **{**QUICK, **given}).fit(*shots(colours)).class_vectors()

    torch.manual_seed(1)
    first = vectors()
    torch.manual_seed(2)
    assert torch.equal(vectors(), first)
    assert not torch.equal(vectors(seed=2), first)


# --- training


def test_it_goes_on_from_a_checkpoint(tiny_model: Clip, colours: ImageData, tmp_path: Path) -> None:
    def stop(step: Step, total: int) -> None:
        if step.step == 7:
            raise KeyboardInterrupt

    def keep(steps: list[Step], step: Step, total: int) -> None:
        steps.append(step)

    for name in ("coop", "promptsrc"):
        settings = {**QUICK, "method": name, "epochs": 6, "calibrate": True}
        whole = PromptClassifier(tiny_model, **settings).fit(*shots(colours))
        checkpoint = tmp_path / name
        with pytest.raises(KeyboardInterrupt):
            PromptClassifier(tiny_model, **settings).fit(*shots(colours), checkpoint=checkpoint, on_step=stop)
        assert checkpoint.exists()
        steps: list[Step] = []
        again = PromptClassifier(tiny_model, **settings)
        again.fit(*shots(colours), checkpoint=checkpoint, on_step=partial(keep, steps))
        assert steps[0].step in (7, 8) and steps[-1].step == 12
        state = again.method.prompter.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in whole.method.prompter.state_dict().items())
        assert again.temperature == whole.temperature
        with pytest.raises(UserError, match="checkpoint of a run with other settings, data or model"):
            PromptClassifier(tiny_model, **settings).fit(*shots(colours, "test"), checkpoint=checkpoint)


def test_the_temperature_is_that_of_images_left_out(tiny_model: Clip, colours: ImageData) -> None:
    pictures, labels = shots(colours)
    whole = PromptClassifier(tiny_model, **{**QUICK, "calibrate": True}).fit(pictures, labels)
    place = {name: 0 for name in NAMES}
    fold = []
    for label in labels:  # every other image of a class
        fold.append(place[label] % 2)
        place[label] += 1
    logits, answers = [], []
    for held in (0, 1):
        rest, out = ([at for at, own in enumerate(fold) if (own == held) == left] for left in (False, True))
        part = PromptClassifier(tiny_model, **QUICK)
        part.fit([pictures[at] for at in rest], [labels[at] for at in rest])
        assert part.temperature == 1
        logits.append(part.logits([pictures[at] for at in out]))
        answers += [NAMES.index(labels[at]) for at in out]
    assert whole.temperature == pytest.approx(fit_temperature(np.concatenate(logits), np.array(answers)), rel=1e-4)
    assert whole.temperature != 1
    plain = PromptClassifier(tiny_model, **QUICK).fit(pictures, labels)
    assert torch.equal(plain.class_vectors(), whole.class_vectors()), "the prompts are the same"
    assert np.allclose(plain.logits(pictures) / whole.temperature, whole.logits(pictures), rtol=1e-6)


def test_one_image_of_a_class_calibrates_nothing(tiny_model: Clip, colours: ImageData) -> None:
    pictures, labels = shots(colours)
    few = PromptClassifier(tiny_model, **{**QUICK, "calibrate": True}).fit(pictures[: -TRAIN + 1], labels[: -TRAIN + 1])
    assert few.temperature == 1


def test_other_views_are_trained_on(tiny_model: Clip, colours: ImageData, tmp_path: Path) -> None:
    classifier = PromptClassifier(tiny_model, **{**QUICK, "views": 3})
    classifier.fit(*shots(colours), cache=tmp_path)
    assert classifier.training["images_encoded"] == 3 * 4 * TRAIN
    again = PromptClassifier(tiny_model, **{**QUICK, "views": 3, "seed": 5}).fit(*shots(colours), cache=tmp_path)
    assert again.training["images_encoded"] == 0, "another seed encodes nothing"


def test_images_that_cannot_be_read_are_left_out(tiny_model: Clip, colours: ImageData, tmp_path: Path) -> None:
    pictures, labels = shots(colours)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    expected = PromptClassifier(tiny_model, **QUICK).fit(pictures, labels)
    with pytest.warns(DataWarning, match=r"1 of 13 pictures are skipped: .*broken.png cannot be read as a picture"):
        found = PromptClassifier(tiny_model, **QUICK).fit([*pictures[:2], broken, *pictures[2:]], [labels[0], *labels])
    assert torch.equal(found.class_vectors(), expected.class_vectors())
    assert found.training["images"] == 12
    with pytest.raises(UserError, match="1 of 3 images cannot be read; leave them out"), pytest.warns(DataWarning):
        found.predict([pictures[0], broken, pictures[1]])
    with (
        pytest.warns(DataWarning, match="pictures are skipped"),
        pytest.warns(DataWarning, match="1 of 5 classes have no training image: zebra"),
    ):
        found = PromptClassifier(tiny_model, **QUICK).fit([*pictures, broken], [*labels, "zebra"])
    assert found.predict_proba(pictures).shape == (12, 5)


# --- as in scikit-learn


def test_the_manner_of_scikit_learn(tiny_model: Clip, picture_folder: Path, colours: ImageData) -> None:
    paths = sorted((picture_folder / "train").glob("*/*.png"))
    labels = [path.parent.name for path in paths]
    classifier = PromptClassifier(tiny_model, **QUICK)
    assert classifier.fit(paths, labels) is classifier
    assert classifier.classes == NAMES
    expected = classifier.logits(paths)
    for given in ([str(path) for path in paths], np.array([str(path) for path in paths]), shots(colours)[0]):
        assert np.array_equal(classifier.logits(given), expected)
    as_array = PromptClassifier(tiny_model, **QUICK).fit(np.array([str(path) for path in paths]), np.array(labels))
    assert np.array_equal(as_array.logits(paths), expected)
    features = frozen_images(tiny_model, shots(colours)[0])
    for vectors in (features, features.numpy(), 3 * features.numpy().astype(np.float64)):
        assert np.allclose(classifier.logits(vectors), expected, atol=ROUNDING), "of any length"
        assert classifier.score(vectors, labels) == classifier.score(paths, np.array(labels))
    reversed_ = PromptClassifier(tiny_model, **QUICK).fit(paths, labels, NAMES[::-1])
    assert reversed_.classes == NAMES[::-1] and reversed_.predict(paths).dtype.kind == "U"
    again = classifier.fit(paths[:6], labels[:6])
    assert again.classes == NAMES[:2] and again.predict_proba(paths).shape == (12, 2)


def test_a_fit_that_is_refused_leaves_the_prompts(tiny_model: Clip, colours: ImageData) -> None:
    pictures, labels = shots(colours)
    classifier = PromptClassifier(tiny_model, **QUICK).fit(pictures, labels)
    expected = classifier.logits(pictures)
    with pytest.raises(UserError, match="expected two classes or more to tell apart, got 1"):
        classifier.fit(pictures[:2], ["blue", "blue"])
    assert classifier.classes == NAMES and np.array_equal(classifier.logits(pictures), expected)


@pytest.mark.parametrize(
    ("pictures", "labels", "classes", "message"),
    [
        (["a.png"], ["cat", "dog"], None, "expected one label for each image, got 1 images and 2 labels"),
        (["a.png", "b.png"], ["cat", "cow"], ["cat", "dog"], "the label 'cow' is not one of the 2 classes"),
        (["a.png", "b.png"], ["cat", "Cat"], None, "class names must differ, got 'Cat' and 'cat'; rename one"),
        (["a.png", "b.png"], ["cat", ""], None, "class name 1 of 2 is empty; name every class"),
        (["a.png", "b.png"], ["cat", "o " * 40], None, "the class name 'o o .*' has 41 tokens; .* shorten the name"),
        (["a.png", "c.png"], ["cat", "dog"], None, "c.png is not a file; expected a picture"),
        (["a.png", "."], ["cat", "dog"], None, r"\. is not a file; expected a picture"),
        ([], [], None, "expected at least one class name, got none"),
        ("a.png", ["cat"], None, r"expected a list of images, got the single path a.png; write \[path\]"),
    ],
)
def test_what_cannot_be_fitted(
    tiny_model: Clip,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pictures: Any,
    labels: list[str],
    classes: list[str] | None,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        tiny_clip.write_picture(tmp_path / f"{name}.png", "blue")
    with pytest.raises(UserError, match=message):
        PromptClassifier(tiny_model, **QUICK).fit(pictures, labels, classes)


def test_what_cannot_be_asked(
    tiny_model: Clip, fitted: dict[str, PromptClassifier], colours: ImageData, tmp_path: Path
) -> None:
    fresh, (pictures, labels) = PromptClassifier(tiny_model), shots(colours, "test")
    for ask in (
        lambda: fresh.predict(pictures),
        lambda: fresh.logits(pictures, NAMES),
        lambda: fresh.class_vectors(),
        lambda: fresh.save(tmp_path / "prompts"),
        lambda: fresh.export(tmp_path / "export"),
    ):
        with pytest.raises(UserError, match=r"this classifier has no prompts yet: call fit, or PromptClassifier\.load"):
            ask()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match=r"expected features \(n, 24\), got \(2, 7\)"):
        fitted["coop"].logits(np.zeros((2, 7)))
    with pytest.raises(UserError, match=r"expected features \(n, 24\), got \(24,\)"):
        fitted["coop"].logits(torch.zeros(24))
    for name in PROMPT_IMAGES:
        with pytest.raises(UserError, match=f"{name} prompts the image tower: give images, not their features"):
            fitted[name].logits(np.zeros((2, DIMENSION)))
    with pytest.raises(UserError, match="expected one label for each image, got 8 images and 7 labels"):
        fitted["coop"].score(pictures, labels[1:])
    with pytest.raises(UserError, match="class names must differ"):
        fitted["coop"].predict(pictures, ["cat", "cat"])
    with pytest.raises(UserError, match="give either settings or their fields by name, not both"):
        PromptClassifier(tiny_model, Settings(), epochs=3)


# --- export


@pytest.mark.parametrize("names", [None, OTHERS])
@pytest.mark.parametrize(("name", "strength"), [("coop", 1), ("tcp", 0.5), ("cocoop", 0), ("vpt", 0)])
def test_an_export_rebuilds_the_logits(
    fitted: dict[str, PromptClassifier],
    colours: ImageData,
    tmp_path: Path,
    name: str,
    strength: float,
    names: tuple[str, ...] | None,
) -> None:
    from safetensors.numpy import load_file

    classifier = at(strength, fitted[name], temperature=0.7)
    classifier.export(tmp_path / "export", names)
    tensors = load_file(tmp_path / "export" / "classes.safetensors")
    described = json.loads((tmp_path / "export" / "classes.json").read_text())
    assert described["names"] == list(names or NAMES)
    assert described["fingerprint"] == classifier.clip.fingerprint
    assert tensors["weight"].shape == (4, DIMENSION) and tensors["weight"].dtype == np.float32
    images = frozen_images(classifier.clip, shots(colours, "test")[0]).numpy()
    rebuilt = tensors["logit_scale"] * images @ tensors["weight"].T
    assert np.allclose(rebuilt, classifier.logits(images, names), atol=EXACT / 0.7)
    assert described["logit_scale"] == pytest.approx(float(tensors["logit_scale"])) == pytest.approx(SCALE / 0.7)

    opened = Index.open(tmp_path / "export" / "index")
    assert opened.manifest["encoder"] == {"fingerprint": classifier.clip.fingerprint}
    scores, ids = opened.search(images, 4)
    order = np.argsort(-rebuilt, axis=1)
    assert [row[0] for row in ids] == [(names or NAMES)[first] for first in order[:, 0]]
    assert np.allclose(scores, np.take_along_axis(rebuilt, order, axis=1) / tensors["logit_scale"], atol=1e-5)


def test_what_is_not_exported(fitted: dict[str, PromptClassifier], tmp_path: Path) -> None:
    for name in PROMPT_IMAGES:
        with pytest.raises(
            UserError, match=f"{name} prompts the image tower too: a class matrix alone is not the model"
        ):
            fitted[name].export(tmp_path / "export")
    with pytest.raises(UserError, match="cocoop's class vectors depend on the image: there is no one matrix"):
        fitted["cocoop"].export(tmp_path / "export")
    assert list(tmp_path.iterdir()) == []
    fitted["coop"].export(tmp_path / "export")
    with pytest.raises(UserError, match="export exists already; choose another name or pass --overwrite"):
        fitted["coop"].export(tmp_path / "export")
    fitted["coop"].export(tmp_path / "export", OTHERS, overwrite=True)
    assert json.loads((tmp_path / "export" / "classes.json").read_text())["names"] == list(OTHERS)


def test_a_folder_of_the_first_format_still_gives_its_logits() -> None:
    classifier = PromptClassifier.load(Path(__file__).parents[1] / "data" / "clip_prompts_1", device="cpu")
    assert (classifier.classes, classifier.strength, classifier.temperature) == (("dog", "red car"), 0.75, 1.25)
    features = torch.linspace(-1, 1, 2 * 256).view(2, 256)
    recorded = [[0.9209524989128113, -0.6208972930908203], [-0.21159982681274414, -0.9551755785942078]]
    assert classifier.logits(features) == pytest.approx(np.array(recorded), abs=1e-5)


def test_prompts_that_stand_elsewhere_are_refused(tiny_model: Clip) -> None:
    classifier = PromptClassifier(tiny_model, position="end")
    classifier._method = built = method("coop").build(tiny_model, Settings.of())
    assert classifier.search_prompts() == (built.prompter, 1.0)
    classifier = PromptClassifier(tiny_model, position="front")
    with pytest.raises(UserError) as error:
        classifier.search_prompts()
    assert str(error.value) == (
        "these prompts were tuned with the class name at the front of them, and a search puts them before the text; "
        'use prompts of the position "end"'
    )
