"""Students of a larger CLIP: what they learn without labels, what their folder holds, when the teacher is needed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_clip
import torch
from tiny_clip import NAMES, OTHERS

from multimodal.classifier import PromptClassifier
from multimodal.data.images import ImageData
from multimodal.data.pictures import Picture, load_pictures
from multimodal.prompts.contexts import Classes
from multimodal.towers.clip import Clip
from multimodal.training.distillation import Lessons
from retrieval_prompts.errors import DataWarning, UserError
from retrieval_prompts.training.loop import Step

QUICK: dict[str, Any] = {"method": "promptkd", "epochs": 4, "batch_size": 4, "learning_rate": 0.01, "head": "none"}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP of other weights than the student's."""
    return tiny_clip.write_clip(tmp_path_factory.mktemp("teacher") / "larger", seed=5)


@pytest.fixture(scope="module")
def pictures(picture_folder: Path) -> list[Picture]:
    return load_pictures(picture_folder)


def weights(clip: Clip) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in clip.model.state_dict().items()}


def same(one: dict[str, torch.Tensor], clip: Clip) -> bool:
    return all(torch.equal(one[name], value) for name, value in clip.model.state_dict().items())


@pytest.fixture(scope="module")
def student(tiny_model: Clip, teacher: Path, pictures: list[Picture]) -> PromptClassifier:
    return PromptClassifier(tiny_model, teacher=str(teacher), **QUICK).fit(pictures, None, NAMES)


def test_a_student_comes_nearer_to_its_teacher(tiny_model: Clip, teacher: Path, pictures: list[Picture]) -> None:
    classifier = PromptClassifier(tiny_model, teacher=str(teacher), **{**QUICK, "epochs": 12})
    before, told = weights(tiny_model), list[Step]()
    classifier.fit(pictures, None, NAMES, on_step=lambda step, total: told.append(step))
    losses = [step.loss for step in told]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert same(before, tiny_model), "the student's towers are frozen"
    taught = classifier.method.teacher
    assert taught is not None and same(weights(taught.clip), taught.clip)
    assert classifier.temperature == 1 and classifier.answer is None and classifier.classes == NAMES
    lessons = Lessons(classifier.method, classifier.known_classes(), pictures, classifier.settings, None)
    said = lessons.said(np.arange(len(pictures)), np.zeros(len(pictures), dtype=np.int64))
    frozen = Classes(taught.clip, NAMES, classifier.settings).frozen
    images = torch.stack([taught.clip.preprocess(picture.load()) for picture in pictures])
    assert torch.allclose(said, taught.clip.scale * taught.clip.encode_images(images) @ frozen.T, atol=0.05)


def test_the_folder_serves_its_classes_without_the_teacher(
    teacher: Path, pictures: list[Picture], tiny_model: Clip, tmp_path: Path
) -> None:
    place, moved = shutil.copytree(teacher, tmp_path / "larger"), tmp_path / "moved"
    student = PromptClassifier(tiny_model, **{**QUICK, "teacher": str(place), "epochs": 1})
    student.fit(pictures, None, NAMES).save(tmp_path / "kd")
    expected, new = student.predict_proba(pictures[:4]), student.predict_proba(pictures[:4], OTHERS)
    again = PromptClassifier.load(tmp_path / "kd", tiny_model)
    assert np.array_equal(again.predict_proba(pictures[:4]), expected)
    assert "clip" not in vars(again.method.teacher), "the teacher was not loaded"
    assert np.allclose(again.predict_proba(pictures[:4], OTHERS), new, atol=1e-6)
    place.rename(moved)
    lost = PromptClassifier.load(tmp_path / "kd", tiny_model)
    assert np.array_equal(lost.predict_proba(pictures[:4]), expected)
    with pytest.raises(
        UserError, match=r"^4 classes are new to this student, and its teacher, .* is not there .*larger"
    ):
        lost.predict(pictures[:1], OTHERS)
    found = PromptClassifier.load(tmp_path / "kd", tiny_model, teacher=str(moved))
    assert np.allclose(found.predict_proba(pictures[:4], OTHERS), new, atol=1e-6)
    other = PromptClassifier.load(
        tmp_path / "kd", tiny_model, teacher=str(tiny_clip.write_clip(tmp_path / "x", seed=8))
    )
    with pytest.raises(UserError, match=r"expected the teacher .*larger, got .*x with other weights; give --teacher"):
        other.predict(pictures[:1], OTHERS)


def test_strength_mixes_what_student_and_frozen_model_say(student: PromptClassifier, pictures: list[Picture]) -> None:
    whole = student.logits(pictures[:3])
    try:
        student.strength = 0.0
        frozen = student.logits(pictures[:3])
        student.strength = 0.25
        mixed = student.logits(pictures[:3])
        with pytest.raises(UserError, match="class vectors of teacher and student cannot be mixed"):
            student.class_vectors()
    finally:
        student.strength = 1.0
    classes = Classes(student.clip, NAMES, student.settings)
    images = student.clip.encode_images(torch.stack([student.clip.preprocess(one.load()) for one in pictures[:3]]))
    zero_shot = student.clip.scale * images @ classes.frozen.T
    assert np.allclose(frozen, zero_shot.numpy(), atol=0.05)
    assert np.allclose(mixed, 0.75 * frozen + 0.25 * whole, atol=1e-4)


def test_labelled_shots_calibrate_and_answer_while_others_are_learned_from(
    tiny_model: Clip, teacher: Path, colours: ImageData, picture_folder: Path, student: PromptClassifier
) -> None:
    train = colours.split("train")
    shots, labels = train.pictures, [colours.classes[label] for label in train.labels]
    given = {**QUICK, "teacher": str(teacher), "head": "proker"}
    both = PromptClassifier(tiny_model, unlabelled=str(picture_folder), **given).fit(shots, labels)
    assert both.training["images"] == len(load_pictures(picture_folder)) > len(shots)
    assert both.answer is not None and both.temperature != 1
    taught, numbers = both.method.teacher, np.array([NAMES.index(label) for label in labels])
    assert taught is not None
    for name, clip in (("teacher", taught.clip), ("zero-shot", tiny_model)):
        images = clip.encode_images(torch.stack([clip.preprocess(one.load()) for one in shots]))
        found = (images @ Classes(clip, NAMES, both.settings).frozen.T).argmax(dim=1).numpy()
        assert both.training["right"][name] == pytest.approx(float((found == numbers).mean()))
    plain = both.without_head()
    plain.temperature = 1.0
    assert np.array_equal(plain.predict_proba(shots[:3]), student.predict_proba(shots[:3])), "labels taught it nothing"
    alone = PromptClassifier(tiny_model, **given).fit(shots, labels)
    assert alone.training["images"] == len(shots)


def test_a_picture_that_cannot_be_read_is_named_once(
    tiny_model: Clip, teacher: Path, colours: ImageData, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    train = colours.split("train")
    shots = [*train.pictures, Picture("bad", tmp_path / "bad.png")]
    labels = [*(colours.classes[label] for label in train.labels), colours.classes[0]]
    with pytest.warns(DataWarning, match="1 of 13 pictures are skipped") as told:
        classifier = PromptClassifier(tiny_model, teacher=str(teacher), **{**QUICK, "epochs": 1}).fit(shots, labels)
    assert len(told) == 1 and classifier.training["images"] == len(train.pictures)


def test_what_cannot_be_learned_without_labels(tiny_model: Clip, teacher: Path, pictures: list[Picture]) -> None:
    with pytest.raises(UserError, match="coop learns from labels; give one for each image, or use the method promptkd"):
        PromptClassifier(tiny_model, method="coop").fit(pictures, None, NAMES)
    with pytest.raises(UserError, match=r"without labels the classes are not known; give classes="):
        PromptClassifier(tiny_model, teacher=str(teacher), **QUICK).fit(pictures)
    unread: dict[str, Any]
    for name in ("teacher", "unlabelled"):
        unread = {name: str(teacher)}
        with pytest.raises(UserError, match=f"--{name} is used with --method promptkd, not with --method coop"):
            PromptClassifier(tiny_model, method="coop", **unread)
    with pytest.raises(UserError, match=r"--context is used with --method coop, .* not with --method promptkd"):
        PromptClassifier(tiny_model, teacher=str(teacher), **QUICK, context=8)
