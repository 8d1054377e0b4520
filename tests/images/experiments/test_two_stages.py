"""2SFS: norms first, then a classifier begun at the texts, and new classes by the adapted text tower."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from multimodal.classifier import PromptClassifier
from multimodal.data.images import ImageData, subset
from multimodal.experiments import two_stages
from multimodal.experiments.adapting import in_template
from multimodal.experiments.protocols import EvaluationProtocol, evaluate
from multimodal.experiments.which_system import advice
from multimodal.towers.clip import Clip
from multimodal.vectors.features import pixels
from retrieval_prompts.errors import UserError

TEMPLATE = "a photo of a {}."


def changed(one: Clip, other: Clip) -> set[str]:
    before = other.model.state_dict()
    return {name for name, value in one.model.state_dict().items() if not torch.equal(value, before[name])}


def test_the_first_stage_moves_the_norms_of_the_blocks_and_the_second_the_classifier(
    tiny_model: Clip, colours: ImageData
) -> None:
    train, texts = colours.split("train"), in_template(TEMPLATE, colours.classes)
    before = {name: value.clone() for name, value in tiny_model.model.state_dict().items()}
    made = two_stages.fit(tiny_model, train.pictures, train.labels, texts, seed=1, steps=10)
    norms = {
        f"{tower}transformer.resblocks.{number}.ln_{which}.{part}"
        for tower in ("", "visual.")
        for number in range(2)
        for which in (1, 2)
        for part in ("weight", "bias")
    }
    assert changed(made.clip, tiny_model) == norms
    assert all(torch.equal(value, before[name]) for name, value in tiny_model.model.state_dict().items())
    assert not torch.equal(made.weight, made.clip.encode_texts(texts)), "it began there"

    found = torch.from_numpy(two_stages.logits(made, train.pictures, texts)).log_softmax(dim=1)
    frozen = torch.from_numpy(
        two_stages.logits(
            two_stages.Stages(tiny_model, tuple(texts), tiny_model.encode_texts(texts)), train.pictures, texts
        )
    ).log_softmax(dim=1)
    rows = np.arange(len(found))
    assert found[rows, train.labels].mean() > frozen[rows, train.labels].mean()


def test_known_classes_are_answered_by_their_vectors_and_new_ones_by_the_text_tower(
    tiny_model: Clip, colours: ImageData
) -> None:
    pictures = colours.split("test").pictures[:3]
    weight = 3 * torch.nn.functional.one_hot(torch.arange(2), tiny_model.dimension).float()
    stages = two_stages.Stages(tiny_model, ("a photo of a cat.", "a photo of a dog."), weight)
    texts = ["a photo of a dog.", "a photo of a horse.", "a photo of a cat."]
    found = torch.from_numpy(two_stages.logits(stages, pictures, texts))
    seen = tiny_model.encode_images(torch.stack([pixels(tiny_model, each) for each in pictures]))
    rows = torch.stack([weight[1] / 3, tiny_model.encode_texts(texts)[1], weight[0] / 3])
    assert torch.allclose(found, tiny_model.scale * seen @ rows.T, atol=1e-4)


def test_two_fifths_of_the_steps_are_the_second_stages(
    tiny_model: Clip, colours: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[tuple[int, int]] = []

    def descend(learned: list[torch.nn.Parameter], batches: list[object], *_: object) -> None:
        counts.append((len(learned), len(batches)))

    monkeypatch.setattr(two_stages, "descend", descend)
    train, texts = colours.split("train"), in_template(TEMPLATE, colours.classes)
    two_stages.fit(tiny_model, train.pictures, train.labels, texts)
    assert counts == [(16, 540), (1, 360)], "300 for each of 3 shots a class"


def test_another_kind_of_tower_is_refused() -> None:
    image = {"layers": (1, 1, 1, 1), "width": 8, "image_size": 32}
    text = {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    model = open_clip.CLIP(embed_dim=16, vision_cfg=image, text_cfg=text)
    clip = Clip(model, lambda picture: picture, open_clip.SimpleTokenizer(context_length=20), "toy")
    with pytest.raises(UserError, match=r"^2sfs adapts .* and the image tower of toy is another; leave it out"):
        two_stages.with_norms(clip)


def test_it_is_a_row_of_base_and_new_classes(tiny_model: Clip, colours: ImageData, tmp_path: Path) -> None:
    base = subset(colours, colours.classes[:2])
    train = base.split("train")
    classifier = PromptClassifier(tiny_model, epochs=1, shots=None, calibrate=False, head="none")
    classifier.fit(train.pictures, [base.classes[label] for label in train.labels], base.classes)
    how = EvaluationProtocol("base-to-new", systems=("zero-shot", "tuned", "2sfs"), steps={"2sfs": 3})
    result = evaluate(how, colours, [classifier], cache=tmp_path)
    assert list(result.systems) == ["zero-shot", "tuned", "2sfs"]
    assert all(0 <= result.systems["2sfs"][part] <= 1 for part in ("base", "new", "harmonic_mean"))
    assert "tuned_vs_2sfs" in result.tests["base"]
    assert all("2SFS" in line and "use 2SFS" not in line for line in advice(result).values())
