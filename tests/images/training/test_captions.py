"""Training on captions: the loss by its formula, chunks that change nothing, and a frozen model that stays so."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_clip
import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal.classifier import PromptClassifier
from multimodal.data.captions import Captioned, load_captions
from multimodal.evaluation.captions import Pairs
from multimodal.experiments.captions import evaluate
from multimodal.prompts import folder as artifacts
from multimodal.prompts.methods import method
from multimodal.towers.clip import Clip, load_clip
from multimodal.training import captions as captioning
from multimodal.training.captions import Task, against_all, tune_captions
from multimodal.training.settings import Settings
from multimodal.vectors.texts import encode_texts, text_vectors
from retrieval_prompts.errors import UserError
from retrieval_prompts.training.loop import Step

TEMPERATURE = 0.5


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return load_clip(str(tiny_clip.write_clip(tmp_path_factory.mktemp("clip") / "clip")), device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 colours, 4 pictures each of which the last is in test; 2 captions a picture."""
    return tiny_clip.write_captions(tmp_path_factory.mktemp("data"), per_colour=4)


@pytest.fixture
def train(data: Path) -> Captioned:
    return load_captions(data / "captions.jsonl", "train")


def settings(**given: Any) -> Settings:
    return Settings.of(**{"epochs": 2, "batch_size": 8, "learning_rate": 0.05, **given})


def by_hand(scores: Tensor, right: list[list[int]], temperature: float) -> float:
    """Each positive against the negatives alone, mean over positives, mean over queries."""
    losses = []
    for row, own in zip(scores.tolist(), right, strict=True):
        negatives = sum(math.exp(score / temperature) for at, score in enumerate(row) if at not in own)
        each = [
            -math.log(math.exp(row[at] / temperature) / (math.exp(row[at] / temperature) + negatives)) for at in own
        ]
        losses.append(sum(each) / len(each))
    return sum(losses) / len(losses)


def random_unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


RIGHT = [[0], [2, 3], [4], [1], [0, 4]]


def test_against_all_by_hand() -> None:
    texts, images = random_unit(5, 6), random_unit(7, 6, seed=1)
    found = against_all(texts, images, RIGHT, TEMPERATURE)
    assert found.item() == pytest.approx(by_hand(texts @ images.T, RIGHT, TEMPERATURE), rel=1e-5)


@pytest.mark.parametrize("scores", [1, 7, 14, 15])
def test_chunks_change_nothing(scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, images = random_unit(5, 6).requires_grad_(), random_unit(7, 6, seed=1)
    whole = against_all(texts, images, RIGHT, TEMPERATURE)
    (expected,) = torch.autograd.grad(whole, texts)
    monkeypatch.setattr(captioning, "SCORES", scores)
    chunked = against_all(texts, images, RIGHT, TEMPERATURE)
    (gradient,) = torch.autograd.grad(chunked, texts)
    assert torch.allclose(chunked, whole, atol=1e-6) and torch.allclose(gradient, expected, atol=1e-6)


def test_the_loss_of_a_batch_by_hand(clip: Clip) -> None:
    """Pictures 1 and 3 are the batch; a caption of 3 stands with picture 0 too, which is outside of it."""
    captions = [["a dog", "two"], ["one dog"], ["a boat"], ["two", "a fish"]]
    pairs = Pairs(random_unit(4, clip.dimension), captions)
    prompter = method("coop").build(clip, settings()).prompter
    task = Task(clip, prompter, lambda view: pairs.images, pairs, settings())
    found = task.loss((0, np.array([3, 1])))
    texts = text_vectors(clip, ["two", "a fish", "one dog"], prompter)
    temperature = 1 / clip.scale
    to_images = by_hand(texts @ pairs.images.T, [[0, 3], [3], [1]], temperature)
    to_captions = by_hand(pairs.images[[3, 1]] @ texts.T, [[0, 1], [2]], temperature)
    assert found.item() == pytest.approx((to_images + to_captions) / 2, rel=1e-4)


def test_batches_hold_every_picture_once_in_an_order_of_the_epoch(clip: Clip) -> None:
    pairs = Pairs(random_unit(10, clip.dimension), [["a"]] * 10)
    prompter = method("coop").build(clip, settings()).prompter
    given = settings(batch_size=4, views=3, seed=5)
    task = Task(clip, prompter, lambda view: pairs.images, pairs, given)
    epochs = [task.batches(epoch) for epoch in range(4)]
    for epoch, batches in enumerate(epochs):
        assert [len(chosen) for _, chosen in batches] == [4, 4, 2]
        assert {view for view, _ in batches} == {epoch % 3}
        assert sorted(np.concatenate([chosen for _, chosen in batches]).tolist()) == list(range(10))
    orders = [np.concatenate([chosen for _, chosen in batches]).tolist() for batches in epochs]
    assert orders[0] != orders[1]
    again = Task(clip, prompter, lambda view: pairs.images, pairs, given).batches(0)
    assert np.concatenate([chosen for _, chosen in again]).tolist() == orders[0]


def test_training_helps_and_moves_nothing_frozen(clip: Clip, train: Captioned, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in clip.model.state_dict().items()}
    records: list[Step] = []
    tuned = tune_captions(
        clip, train, settings(epochs=20), cache=tmp_path, on_step=lambda step, _: records.append(step)
    )
    assert all(torch.equal(value, before[name]) for name, value in clip.model.state_dict().items())
    losses = [record.loss for record in records[1:]]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    dev = tuned.training["dev"]
    assert dev["images"] == 2 and tuned.training["images"] == 22 and tuned.training["captions"] == 44
    assert dev["full_strength"] >= dev["initial"], "the best weights are kept, the initial ones included"
    assert dev["tuned"] >= max(dev["full_strength"], dev["zero-shot"]), "the best strength is kept"
    assert tuned.training["images_encoded"] == 24
    again = tune_captions(clip, train, settings(epochs=1), cache=tmp_path)
    assert again.training["images_encoded"] == 0


def losses(clip: Clip, train: Captioned, given: Settings) -> list[float]:
    found: list[float] = []
    tune_captions(clip, train, given, on_step=lambda step, _: found.append(step.loss))
    return found[1:]


def test_the_same_seed_gives_the_same_training(clip: Clip, train: Captioned) -> None:
    first = losses(clip, train, settings())
    assert losses(clip, train, settings()) == first
    assert losses(clip, train, settings(seed=2)) != first


def test_a_killed_run_goes_on(clip: Clip, train: Captioned, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(step: Step, _: int) -> None:
        if step.step == 4:
            raise Killed

    expected = losses(clip, train, settings())
    whole = tune_captions(clip, train, settings())
    with pytest.raises(Killed):
        tune_captions(clip, train, settings(), checkpoint=tmp_path / "part", on_step=kill)
    seen: list[Step] = []
    resumed = tune_captions(
        clip, train, settings(), checkpoint=tmp_path / "part", on_step=lambda step, _: seen.append(step)
    )
    assert seen[0].step == 4, "it was kept after the first epoch, at step 3"
    assert [step.loss for step in seen] == expected[3:]
    state = whole.prompter.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in resumed.prompter.state_dict().items())
    assert resumed.training["dev"] == whole.training["dev"] and resumed.strength == whole.strength
    changed = replace(train, captions=[[*own, "more"] for own in train.captions])
    with pytest.raises(UserError, match="other settings, data or model"):
        tune_captions(clip, changed, settings(), checkpoint=tmp_path / "part")


def test_prompts_are_saved_as_others_are(clip: Clip, train: Captioned, data: Path, tmp_path: Path) -> None:
    tuned = replace(tune_captions(clip, train, settings()), strength=0.5)
    tuned.save(tmp_path / "prompts", clip)
    loaded = PromptClassifier.load(tmp_path / "prompts", clip)
    prompter, strength = loaded.search_prompts()
    lasting = {name: value for name, value in tuned.training.items() if name not in ("images_encoded", "seconds")}
    assert strength == 0.5 and loaded.training == lasting and loaded.classes == ()
    assert torch.equal(text_vectors(clip, ["a boat"], prompter), text_vectors(clip, ["a boat"], tuned.prompter))
    test = load_captions(data / "captions.jsonl", "test")
    ours, theirs = (evaluate(clip, test, (each, 0.5)) for each in (prompter, tuned.prompter))
    assert ours.systems == theirs.systems
    assert set(loaded.predict([train.pictures[0].source], ["blue", "pink"])) <= {"blue", "pink"}
    assert sum(file.stat().st_size for file in (tmp_path / "prompts").iterdir()) < 20_000
    with pytest.raises(UserError, match="exists already"):
        tuned.save(tmp_path / "prompts", clip)
    assert artifacts.load(tmp_path / "prompts").base["fingerprint"] == clip.fingerprint


def test_deep_prompts_and_views(clip: Clip, train: Captioned, tmp_path: Path) -> None:
    tuned = tune_captions(clip, train, settings(method="deep", depth=2, views=2), cache=tmp_path)
    assert tuned.training["images_encoded"] == 48, "two views of each"
    assert next(iter(tuned.prompter.state_dict().values())).shape == (2, 4, clip.text.width)


def test_bfloat16_is_near(clip: Clip) -> None:
    pairs = Pairs(random_unit(6, clip.dimension), [[f"number {at}"] for at in range(6)])
    losses = []
    for precision in ("float32", "bfloat16"):
        prompter = method("coop").build(clip, settings()).prompter
        task = Task(clip, prompter, lambda view: pairs.images, pairs, settings(precision=precision))
        losses.append(task.loss((0, np.arange(6))).item())
    assert losses[1] == pytest.approx(losses[0], rel=0.05) and losses[1] != losses[0]


@pytest.mark.parametrize("name", ["kgcoop", "prograd", "tcp", "vpt", "maple", "promptsrc"])
def test_methods_with_losses_of_their_own_are_refused(clip: Clip, train: Captioned, name: str) -> None:
    with pytest.raises(UserError) as error:
        tune_captions(clip, train, Settings.of(method=name, depth=2))
    assert str(error.value) == (
        f"captions are trained on with a loss of their own, which the method {name} does not go with; use coop, "
        "deep or feedback"
    )


def test_prompts_of_each_picture_are_refused(clip: Clip, train: Captioned) -> None:
    with pytest.raises(UserError, match="they depend on the picture"):
        tune_captions(clip, train, settings(method="cocoop"))


def test_a_context_stands_before_a_caption(clip: Clip, train: Captioned) -> None:
    with pytest.raises(UserError) as error:
        tune_captions(clip, train, settings(position="front"))
    assert str(error.value) == "a context stands before a caption; leave out --position front"
    assert tune_captions(clip, train, settings(shots=2)).settings.shots is None


def test_too_few_pictures(clip: Clip, train: Captioned) -> None:
    few = Captioned("few", train.pictures[:3], train.captions[:3], "train")
    with pytest.raises(UserError) as error:
        tune_captions(clip, few, settings())
    assert str(error.value) == "expected four or more pictures with captions to train on, got 3"
    four = Captioned("four", train.pictures[:4], train.captions[:4], "train")
    assert tune_captions(clip, four, settings()).training["images"] == 2


def test_a_file_without_a_train_split_says_so(tmp_path: Path, data: Path) -> None:
    lines = [line for line in (data / "captions.jsonl").read_text().splitlines() if '"test"' in line]
    (tmp_path / "captions.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match="has no captions of the split 'train'; it has test"):
        load_captions(tmp_path / "captions.jsonl", "train", images=data)


def test_dev_is_the_same_at_every_strength_as_encoded(clip: Clip, train: Captioned) -> None:
    tuned = tune_captions(clip, train, settings())
    order = np.random.default_rng([tuned.settings.seed]).permutation(len(train.pictures))
    held = np.sort(order[:2])
    from multimodal.vectors.features import image_features
    from multimodal.vectors.texts import Texts

    dev = Pairs(image_features(clip, train.pictures).take(held), [train.captions[at] for at in held])
    vectors = encode_texts(Texts(clip, dev.captions), tuned.prompter, tuned.strength)
    assert dev.ranks(vectors).mean_reciprocal_rank() == pytest.approx(tuned.training["dev"]["tuned"])
