"""What scikit-learn and people ask of PromptClassifier: settings, clones, pictures of all kinds, numbers, a head."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from tiny_clip import NAMES, OTHERS

from multimodal.classifier import PromptClassifier
from multimodal.data.images import ImageData
from multimodal.data.inputs import label_numbers, label_values
from multimodal.interop import class_matrix
from multimodal.towers.clip import Clip
from multimodal.training.settings import Settings
from retrieval_prompts.errors import UserError
from retrieval_prompts.files import sealed
from retrieval_prompts.prompts.folder import DESCRIPTION

QUICK: dict[str, Any] = {"epochs": 1, "learning_rate": 0.05, "batch_size": 16, "calibrate": False}
NUMBERS = 1e-4  # float32 sums in another order


def shots(data: ImageData, split: str = "train") -> tuple[list[Path], list[str]]:
    part = data.split(split)
    return [Path(picture.place) for picture in part.pictures], [data.classes[label] for label in part.labels]


@pytest.fixture(scope="module")
def headed(tiny_model: Clip, colours: ImageData) -> PromptClassifier:
    """With a head of all four colours: no test may change it."""
    return PromptClassifier(tiny_model, head="proker", **QUICK).fit(*shots(colours))


# --- scikit-learn


def test_settings_are_kept_as_they_were_given(tiny_model: Clip) -> None:
    classifier = PromptClassifier(tiny_model, method="kgcoop", shots=4)
    params = classifier.get_params()
    assert params["clip"] is tiny_model and (params["method"], params["shots"], params["epochs"]) == ("kgcoop", 4, None)
    assert classifier.settings.epochs == 100
    assert classifier.set_params(method="coop") is classifier
    assert (classifier.settings.method, classifier.settings.epochs, classifier.settings.shots) == ("coop", 50, 4)
    with pytest.raises(UserError, match="no such setting: colour; there are method"):
        classifier.set_params(colour="red")
    assert classifier.settings.method == "coop"


def test_a_clone_is_unfitted_and_shares_the_frozen_model(headed: PromptClassifier) -> None:
    copy = clone(headed)
    assert copy.clip is headed.clip and copy.get_params() == headed.get_params() and copy.settings == headed.settings
    with pytest.raises(UserError, match="has no prompts yet"):
        copy.predict([])


def test_settings_that_were_given_whole_are_in_the_clone(tiny_model: Clip) -> None:
    settings = Settings(method="kgcoop", shots=None, epochs=3, head="none")
    classifier = PromptClassifier(tiny_model, settings)
    params = classifier.get_params()
    assert (params["method"], params["shots"], params["epochs"], params["weight"]) == ("kgcoop", None, 3, None)
    assert clone(classifier).settings == settings
    assert classifier.set_params(method="coop").settings == Settings(shots=None, epochs=3, head="none")


def test_cross_validation_and_grid_search(tiny_model: Clip, colours: ImageData) -> None:
    pictures, labels = shots(colours)
    classifier = PromptClassifier(tiny_model, **QUICK)
    found = cross_val_score(classifier, pictures, labels, cv=3)
    assert found.shape == (3,) and (found >= 0).all() and (found <= 1).all()
    search = GridSearchCV(classifier, {"head": ["none", "probe"]}, cv=3).fit(pictures, labels)
    assert search.best_params_["head"] in ("none", "probe") and search.predict(pictures[:1]).shape == (1,)
    assert list(search.classes_) == list(NAMES)


def test_the_last_step_of_a_pipeline(tiny_model: Clip, colours: ImageData) -> None:
    pictures, names = shots(colours)
    pipeline = Pipeline([("classifier", PromptClassifier(tiny_model, head="none", **QUICK))])
    with pytest.raises(NotFittedError):
        pipeline.predict(pictures)
    assert set(pipeline.fit(pictures, names).predict(pictures)) <= set(names)


def test_an_option_that_the_method_does_not_read_is_refused(tiny_model: Clip) -> None:
    with pytest.raises(
        UserError, match="--weight is used with --method kgcoop, prograd, tcp, mmrl or promptsrc, not with"
    ):
        PromptClassifier(tiny_model, method="coop", weight=3.0)
    PromptClassifier(tiny_model, method="coop", weight=None, class_specific=False)


def test_one_string_is_no_list_of_classes(tiny_model: Clip, colours: ImageData, headed: PromptClassifier) -> None:
    message = "expected a list of names as classes, got the single string 'bird'"
    with pytest.raises(UserError, match=message):
        PromptClassifier(tiny_model, **QUICK).fit(*shots(colours), "bird")
    with pytest.raises(UserError, match=message):
        headed.predict([], classes="bird")


# --- pictures and labels


def test_pictures_of_any_kind_are_the_same_pictures(headed: PromptClassifier, colours: ImageData) -> None:
    path = shots(colours, "test")[0][0]
    image = Image.open(path)
    values = np.array(image)
    expected = headed.logits([path])
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    tensor = torch.from_numpy(values)
    kinds: list[Any] = [
        *([str(path)], [image], [path.read_bytes()], [buffer.getvalue()], [values], [values.transpose(2, 0, 1)]),
        *([values / 255], [tensor.permute(2, 0, 1)], [tensor.permute(2, 0, 1) / 255], values[None], tensor[None]),
        *([{"bytes": path.read_bytes(), "path": None}], [{"bytes": None, "path": str(path)}]),  # datasets, not decoded
    ]
    for kind in kinds:
        assert np.allclose(headed.logits(kind), expected, atol=NUMBERS), type(kind[0])


def test_gray_pictures(headed: PromptClassifier) -> None:
    gray = np.arange(400, dtype=np.uint8).reshape(20, 20)
    expected = headed.logits([np.stack([gray] * 3, axis=2)])
    for kind in (gray, gray[:, :, None], torch.from_numpy(gray)[None], Image.fromarray(gray)):
        assert np.allclose(headed.logits([kind]), expected, atol=NUMBERS)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("a.jpg", "expected a list of images, got the single path a.jpg"),
        (b"abc", "expected a list of images, got a single one"),
        ([3], "expected paths, PIL images, .*, got int at position 0"),
        ([np.zeros((5, 5, 7))], r"expected pixels \(H, W, 3\) or \(3, H, W\) at position 0, got the shape \(5, 5, 7\)"),
        ([np.full((4, 4, 3), -0.5)], "expected pixels from 0 to 1 at position 0, got -0.5 to -0.5; .*not preprocessed"),
        ([np.full((4, 4, 3), 300)], "expected pixels from 0 to 255 at position 0, got 300 to 300"),
    ],
)
def test_what_is_no_picture(headed: PromptClassifier, kind: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        headed.logits(kind)


def test_whole_numbers_come_back(tiny_model: Clip, colours: ImageData, tmp_path: Path) -> None:
    pictures, names = shots(colours)
    numbers = [NAMES.index(name) for name in names]
    classifier = PromptClassifier(tiny_model, head="probe", **QUICK).fit(pictures, numbers, NAMES)
    found = classifier.predict(pictures)
    assert (
        found.dtype.kind == "i" and set(found.tolist()) <= {0, 1, 2, 3} and classifier.classes_.tolist() == [0, 1, 2, 3]
    )
    assert classifier.score(pictures, np.array(numbers)) == np.mean(found == np.array(numbers))
    assert classifier.predict(pictures[:1], classes=NAMES).dtype.kind == "U", "names that are asked for are names"
    classifier.save(tmp_path / "prompts")
    again = PromptClassifier.load(tmp_path / "prompts", tiny_model)
    assert again.predict(pictures).tolist() == found.tolist()
    with pytest.raises(UserError, match="the label '4' is not one of the 4 classes"):
        PromptClassifier(tiny_model, **QUICK).fit(pictures, [number + 1 for number in numbers], NAMES)


def test_whole_numbers_without_names(tiny_model: Clip, colours: ImageData) -> None:
    pictures, names = shots(colours)
    numbers = np.array([10 * NAMES.index(name) - 10 for name in names])
    classifier = PromptClassifier(tiny_model, head="probe", **QUICK).fit(pictures, numbers)
    assert classifier.classes_.tolist() == [-10, 0, 10, 20] and set(classifier.predict(pictures)) <= {-10, 0, 10, 20}
    assert classifier.score(pictures, numbers) == np.mean(classifier.predict(pictures) == numbers)
    with pytest.raises(UserError, match="the label '1' is not one of the 4 classes"):
        classifier.score(pictures[:2], [0, 1])


@pytest.mark.parametrize("classes", [None, NAMES])
@pytest.mark.parametrize("labels", [[[0], [1]], 3])
def test_labels_that_are_no_list(tiny_model: Clip, colours: ImageData, labels: Any, classes: Any) -> None:
    with pytest.raises(UserError, match=r"expected a list of labels, one for each image, got the shape \("):
        PromptClassifier(tiny_model, **QUICK).fit(shots(colours)[0][:2], labels, classes)


def test_whole_numbers_are_positions_where_not_all_names_are_numbers() -> None:
    for names, labels, numbers, values in (
        (("cat", "1", "0"), [0, 1], [0, 1], (0, 1, 2)),
        (("2", "1", "0"), [0, 1], [2, 1], (2, 1, 0)),
        (("10", "11"), [0, 1], [0, 1], (0, 1)),
    ):
        assert label_numbers(labels, names, 2).tolist() == numbers and label_values(labels, names) == values
    assert label_numbers(["0", "cat"], ("cat", "1", "0"), 2).tolist() == [2, 0]


# --- the head


def test_known_classes_are_the_heads_and_new_ones_the_prompts(headed: PromptClassifier, colours: ImageData) -> None:
    pictures, _ = shots(colours, "test")
    prompt = headed.without_head()
    assert headed.answer is not None and prompt.answer is None and headed.answer.name == "proker"
    assert np.abs(headed.logits(pictures) - prompt.logits(pictures)).max() > 0.1
    assert np.array_equal(headed.logits(pictures, OTHERS), prompt.logits(pictures, OTHERS))
    both = headed.predict_proba(pictures, [*OTHERS, *NAMES])
    assert np.allclose(both.sum(axis=1), 1, atol=1e-5)
    known, new = both[:, len(OTHERS) :], both[:, : len(OTHERS)]
    assert np.allclose(known / known.sum(axis=1, keepdims=True), headed.predict_proba(pictures), atol=1e-4)
    assert np.allclose(new / new.sum(axis=1, keepdims=True), headed.predict_proba(pictures, OTHERS), atol=1e-4)
    some = headed.logits(pictures, [NAMES[2], NAMES[0]])
    assert np.allclose(some, headed.logits(pictures)[:, [2, 0]], atol=NUMBERS)


def test_strength_goes_from_the_frozen_model_to_the_head(headed: PromptClassifier, colours: ImageData) -> None:
    pictures, _ = shots(colours, "test")
    weaker = headed.without_head()
    weaker.strength, weaker.temperature = 0.0, 2.0
    frozen = weaker.logits(pictures)
    weaker.answer = headed.answer
    assert np.array_equal(weaker.logits(pictures), frozen)
    weaker.strength = 0.5
    assert np.allclose(weaker.logits(pictures), (frozen + headed.logits(pictures)) / 2, atol=NUMBERS)


def test_a_head_is_saved_with_the_prompt(headed: PromptClassifier, colours: ImageData, tmp_path: Path) -> None:
    pictures, _ = shots(colours, "test")
    headed.save(tmp_path / "prompts")
    again = PromptClassifier.load(tmp_path / "prompts", headed.clip)
    assert again.answer is not None and headed.answer is not None and again.answer.about == headed.answer.about
    for classes in (None, [*OTHERS, NAMES[0]]):
        assert np.allclose(again.logits(pictures, classes), headed.logits(pictures, classes), atol=NUMBERS)
    headed.without_head().save(tmp_path / "alone")
    assert not {"head", "labels"} & json.loads((tmp_path / "alone" / DESCRIPTION).read_text()).keys(), (
        "as it was before"
    )
    assert PromptClassifier.load(tmp_path / "alone", headed.clip).answer is None


def test_an_export_holds_the_head(headed: PromptClassifier, colours: ImageData, tmp_path: Path) -> None:
    headed.export(tmp_path / "export")
    parts = load_file(tmp_path / "export" / "classes.safetensors")
    beta = json.loads((tmp_path / "export" / "classes.json").read_text())["head"]["beta"]
    x = torch.nn.functional.normalize(torch.randn(5, headed.clip.dimension), dim=1)
    found = x @ parts["head_weight"].T + parts["head_bias"]
    found += torch.exp(-beta * (1 - x @ parts["head_keys"].T)) @ parts["head_values"]
    assert np.allclose(found, headed.logits(x), atol=NUMBERS)
    headed.export(tmp_path / "new", [*OTHERS, NAMES[0]])
    assert load_file(tmp_path / "new" / "classes.safetensors").keys() == {"weight", "logit_scale"}
    assert class_matrix.held(headed) is headed.answer and class_matrix.held(headed, OTHERS) is None


def test_a_folder_from_before_there_were_heads_has_none(headed: PromptClassifier, tmp_path: Path) -> None:
    headed.without_head().save(tmp_path / "old")
    about = json.loads((tmp_path / "old" / DESCRIPTION).read_text())
    del about["settings"]["head"]
    (tmp_path / "old" / DESCRIPTION).write_text(json.dumps(sealed(about)))
    old = PromptClassifier.load(tmp_path / "old", headed.clip)
    assert old.answer is None and old.settings.head == "none"


def test_a_head_that_so_few_images_cannot_fit_leaves_the_prompts(tiny_model: Clip, colours: ImageData) -> None:
    pictures, labels = shots(colours)
    classifier = PromptClassifier(tiny_model, head="none", **QUICK).fit(pictures, labels)
    before = classifier.method
    one = [labels.index(name) for name in NAMES]
    with pytest.raises(UserError, match="--head gda needs 2 images or more in a class; got one of each"):
        classifier.set_params(head="gda").fit([pictures[at] for at in one], list(NAMES))
    assert classifier.method is before


@pytest.mark.filterwarnings("ignore:1 of 5 classes have no training image")
def test_a_class_without_an_image_is_a_new_one_to_the_head(tiny_model: Clip, colours: ImageData) -> None:
    pictures, labels = shots(colours)
    names = [NAMES[0], "zebra", *NAMES[1:]]
    settings = {**QUICK, "calibrate": True, "head": "proker"}
    classifier = PromptClassifier(tiny_model, **settings).fit(pictures, labels, names)
    assert classifier.answer is not None and classifier.answer.classes == tuple(NAMES)
    found = classifier.predict_proba(pictures)
    assert found.shape == (len(pictures), 5) and np.allclose(found.sum(axis=1), 1, atol=1e-5)
    known = np.delete(found, 1, axis=1)
    own = classifier.predict_proba(pictures, NAMES)
    assert np.allclose(known / known.sum(axis=1, keepdims=True), own, atol=1e-4)
    assert class_matrix.held(classifier) is None and class_matrix.held(classifier, NAMES) is classifier.answer


def test_known_classes_alone_need_no_text(headed: PromptClassifier, colours: ImageData, tmp_path: Path) -> None:
    headed.save(tmp_path / "prompts")
    again = PromptClassifier.load(tmp_path / "prompts", headed.clip)
    pictures, _ = shots(colours, "test")
    assert np.allclose(again.logits(pictures, NAMES[::-1]), headed.logits(pictures)[:, ::-1], atol=NUMBERS)
    assert "frozen" not in vars(again.known_classes(NAMES[::-1])), "the text tower did not run"
