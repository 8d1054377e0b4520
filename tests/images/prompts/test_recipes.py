"""The published setting of each method: what it is, what wins over it, and what it changes of prompts and steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from multimodal.data import templates
from multimodal.prompts.contexts import Classes, initial_context
from multimodal.prompts.methods import method
from multimodal.prompts.recipes import PAPER, paper
from multimodal.prompts.settings import PromptSettings
from multimodal.towers.clip import Clip
from multimodal.training.classes import Task
from multimodal.training.settings import Settings, on_data
from multimodal.vectors.features import VIEWS
from retrieval_prompts.errors import UserError
from retrieval_prompts.prompts.settings import check_read

NAMES = ("dog", "red panda", "cup")
LABELS = np.array([0, 0, 0, 1, 1, 2, 2])
# As the papers and their authors' configurations have them, 16 shots
PUBLISHED: dict[str, dict[str, Any]] = {
    "coop": {"epochs": 200, "batch_size": 32, "learning_rate": 2e-3, "context": 16, "init": "gaussian:0.02"},
    "cocoop": {"epochs": 10, "batch_size": 1, "learning_rate": 2e-3, "context": 4, "init": "a photo of a"},
    "kgcoop": {"epochs": 100, "batch_size": 128, "learning_rate": 2e-3, "context": 4, "weight": 8.0},
    "prograd": {"epochs": 200, "batch_size": 32, "learning_rate": 2e-3, "context": 16, "weight": 1.0},
    "tcp": {"epochs": 50, "batch_size": 32, "learning_rate": 2e-3, "context": 4, "weight": 8.0, "optimizer": "adam"},
    "deep": {"epochs": 5, "batch_size": 4, "learning_rate": 2.5e-3, "context": 4, "depth": 12},
    "vpt": {"epochs": 5, "batch_size": 4, "learning_rate": 2.5e-3, "visual": 8, "depth": 12},
    "maple": {"epochs": 5, "batch_size": 4, "learning_rate": 3.5e-3, "context": 2, "depth": 9, "frame": "of a {}."},
    "mmrl": {"epochs": 50, "batch_size": 32, "learning_rate": 1e-3, "context": 5, "depth": 7, "optimizer": "adamw"},
    "promptsrc": {"epochs": 50, "batch_size": 4, "learning_rate": 2.5e-3, "depth": 9, "visual": 4, "context": 4},
}
SHARED = {"weight_decay": 5e-4, "clip_norm": 0, "schedule": "epochs", "augment": "crops", "last_batch": "dropped"}


def of(settings: Settings, names: Mapping[str, Any]) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in names}


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_not_given_is_as_published(name: str) -> None:
    expected = {"optimizer": "sgd", **SHARED, "head": "none", **PUBLISHED[name]}
    settings = Settings.of(method=name, recipe="paper")
    assert of(settings, expected) == expected
    loop = settings.loop()
    assert (loop.optimizer, loop.schedule, loop.weight_decay, loop.clip) == (
        expected["optimizer"],
        "epochs",
        5e-4,
        None,
    )
    assert loop.eps == (1e-3 if name == "tcp" else 1e-8)
    assert PromptSettings(method=name, recipe="paper").context == settings.context, "without a training, too"
    assert set(PUBLISHED) == set(PAPER)


def test_the_default_recipe_is_what_it_was() -> None:
    before = {"init": "a photo of a", "frame": "{}.", "warmup": 0.1, "weight_decay": 0.0, "clip_norm": 1.0, "views": 1}
    before |= {"optimizer": "adamw", "schedule": "steps", "augment": "views", "last_batch": "kept", "head": "auto"}
    for name in PUBLISHED:
        settings = Settings.of(method=name)
        assert of(settings, before) == before
        assert (settings.recipe, settings.cached_views) == ("default", 1)
    loop = Settings.of().loop()
    assert (loop.clip, loop.optimizer, loop.eps, loop.schedule, loop.warmup) == (1.0, "adamw", 1e-8, "steps", 0.1)


def test_what_is_given_wins() -> None:
    given = {"optimizer": "adamw", "epochs": 3, "context": 4, "init": "a photo of a", "augment": "views"}
    given |= {"clip_norm": 1.0, "weight_decay": 0.0, "schedule": "steps", "head": "probe", "last_batch": "kept"}
    settings = Settings.of(method="coop", recipe="paper", **given)
    assert of(settings, given) == given
    pets = on_data({"method": "tcp", "recipe": "paper", "frame": "{}!", "template": "the {}"}, "oxford_pets")
    assert (pets.frame, pets.template) == ("{}!", "the {}")
    plain = Settings.of(method="coop", recipe="paper", warmup=0.2)
    with pytest.raises(UserError, match=r"^--warmup is used with --schedule steps, not with --schedule epochs$"):
        check_read(plain, ["warmup"])
    with pytest.raises(UserError, match=r"^--recipe is used with labelled pictures, not with captions$"):
        check_read(plain, ["recipe"], data="captions")


@pytest.mark.parametrize(("shots", "epochs"), [(1, 50), (2, 100), (4, 100), (8, 200), (16, 200), (None, 200)])
def test_coop_trains_as_long_as_it_has_shots(shots: int | None, epochs: int) -> None:
    for name in ("coop", "prograd"):
        assert Settings.of(method=name, recipe="paper", shots=shots).epochs == epochs
    assert Settings.of(method="tcp", recipe="paper", shots=shots).epochs == 50


def test_what_a_paper_has_for_a_data_set() -> None:
    def got(name: str, data: str, **given: Any) -> Settings:
        return on_data({"method": name, "recipe": "paper", **given}, data)

    assert on_data({}, "oxford_pets").template == "a photo of a {}, a type of pet."
    assert on_data({}, "my pictures") == Settings.of()
    assert got("coop", "dtd").template == "{} texture."
    assert got("kgcoop", "DTD").template == "a photo of a {}, a type of texture."
    assert got("tcp", "OxfordPets").frame == "{}, a type of pet."
    assert got("tcp", "fgvc_aircraft").template == "a photo of an aircraft {}."
    assert got("tcp", "my pictures").frame == "{}."
    assert (got("tcp", "sun397").epochs, got("coop", "imagenet").epochs) == (25, 50)
    pets = got("prograd", "oxford_pets")
    assert (pets.template, pets.init) == ("a type of pet, a photo of a {}.", "zeros:a type of pet, a photo of")
    assert pets.frame == "a {}.", "as many tokens as words, of which the comma is none"
    assert (got("prograd", "dtd").init, got("prograd", "dtd").frame) == ("zeros:a texture of", "{}.")
    assert [got("prograd", "eurosat", shots=shots).weight for shots in (4, 16)] == [1.0, 0.8]
    mmrl = got("mmrl", "oxford_pets")
    assert (mmrl.frame, mmrl.weight, mmrl.batch_size) == ("a photo of a {}, a type of pet.", 0.2, 32)
    assert (got("mmrl", "imagenet").epochs, got("mmrl", "my pictures").weight) == (5, 0.5)
    spread = {data: (got("promptsrc", data).average_at, got("promptsrc", data).average_width) for data in ("dtd", "x")}
    assert spread == {"dtd": (0.9, 0.1), "x": (0.6, 0.6)}, "45 and 5, 30 and 30 of 50 epochs"


def test_base_to_new_has_settings_of_its_own() -> None:
    def got(name: str) -> Settings:
        return on_data({"method": name, "recipe": "paper"}, "dtd", base=True)

    assert of(got("coop"), dict.fromkeys(("context", "init", "epochs"))) == {
        "context": 4,
        "init": "a photo of a",
        "epochs": 200,
    }
    source = got("promptsrc")
    assert (source.epochs, source.average_at, source.average_width) == (20, 0.75, 0.05)
    assert of(got("mmrl"), dict.fromkeys(("epochs", "batch_size", "weight"))) == {
        "epochs": 10,
        "batch_size": 4,
        "weight": 6.0,
    }
    large, plain = (on_data({"method": "mmrl", "recipe": "paper"}, data, base=True) for data in ("imagenet", "x"))
    assert (large.epochs, large.batch_size, large.weight, plain.weight) == (5, 32, 0.5, 1.0)
    built = of(got("prograd"), dict.fromkeys(("context", "epochs", "weight")))
    assert built == {"context": 16, "epochs": 100, "weight": 1.0}


def test_a_method_without_a_published_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(PAPER, "vpt")
    with pytest.raises(UserError, match=r"^--recipe paper: there is none for vpt, only for coop, cocoop, .*promptsrc$"):
        Settings.of(method="vpt", recipe="paper")
    assert paper("coop")["epochs"] == 200


# --- what it changes of prompts


def test_where_a_context_starts(tiny_model: Clip) -> None:
    narrow = initial_context(tiny_model, "gaussian:0.02", 400, seed=3)
    assert narrow.std().item() == pytest.approx(0.02, rel=0.05)
    assert abs(narrow.mean().item()) < 0.001
    zeros = initial_context(tiny_model, "zeros:a photo of a", 16, seed=0)
    assert torch.equal(zeros[12:], initial_context(tiny_model, "a photo of a", 4, seed=0))
    assert not zeros[:12].any()
    assert torch.equal(initial_context(tiny_model, "zeros:a photo", 1, 0), initial_context(tiny_model, "photo", 1, 0))
    for wrong in ("gaussian:wide", "gaussian:0", "gaussian:-1", "gaussian:inf"):
        with pytest.raises(UserError, match=r"expected a number above 0 behind gaussian:, as in gaussian:0.02"):
            initial_context(tiny_model, wrong, 4, seed=0)


@pytest.mark.parametrize(
    ("name", "given", "text"),
    [
        ("tcp", {"init": "a photo of a", "frame": "{}, a type of pet."}, "a photo of a dog, a type of pet."),
        ("maple", {}, "a photo of a dog."),
        ("coop", {"init": "a photo of a", "context": 4, "frame": "person doing {}."}, "a photo of a person doing dog."),
    ],
)
def test_the_frame_is_written_beside_the_context(tiny_model: Clip, name: str, given: dict[str, Any], text: str) -> None:
    settings = Settings.of(method=name, recipe="paper", **given)
    made = method(name).build(tiny_model, settings).prompter(Classes(tiny_model, NAMES, settings), None)
    context = made.context
    rows = Classes(tiny_model, NAMES, settings).rows
    found = F.normalize(tiny_model.text.encode(rows, context), dim=-1)[0]
    assert torch.allclose(found, tiny_model.encode_texts([text])[0], atol=1e-5)


def test_a_frame_has_a_place_for_the_name() -> None:
    with pytest.raises(UserError, match='got "a type of pet"'):
        Settings.of(frame="a type of pet")


def test_promptsrc_compares_with_sixty_templates_as_they_are(tiny_model: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "SIXTY", ("a {}.", "many {}."))
    settings = Settings.of(method="promptsrc", recipe="paper")
    texts = [[f"a {name}.", f"many {name}."] for name in NAMES]
    expected = torch.stack([tiny_model.text.plain(each).mean(dim=0) for each in texts])
    assert torch.allclose(
        Classes(tiny_model, NAMES, settings).ensemble, F.normalize(expected, dim=-1).detach(), atol=1e-6
    )
    assert method("promptsrc").build(tiny_model, settings).average == (0.6, 0.6)


# --- what it changes of steps


class Read:
    """Random images in many views."""

    def features(self, positions: Any, views: Any) -> torch.Tensor:
        return torch.stack([_vector(at, view) for at, view in zip(positions, views, strict=True)])


def _vector(at: int, view: int) -> torch.Tensor:
    return F.normalize(torch.randn(24, generator=torch.Generator().manual_seed(1000 * int(at) + int(view))), dim=-1)


def task(clip: Clip, **given: Any) -> Task:
    settings = Settings.of(**{"recipe": "paper", "context": 4, "epochs": 4, "batch_size": 3, **given})
    classes: Any = Classes(clip, NAMES, settings)
    images: Any = Read()
    built = method(settings.method).build(clip, settings, len(NAMES))
    return Task(clip, built, classes, images, LABELS, settings)


def test_each_epoch_reads_a_crop_of_its_own_and_whole_batches(tiny_model: Clip) -> None:
    mine = task(tiny_model)
    assert mine.settings.cached_views == 5, "the image itself, and a crop an epoch"
    for epoch in range(4):
        batches = mine.batches(epoch)
        assert [len(batch.positions) for batch in batches] == [3, 3]
        assert {view for batch in batches for view in batch.views.tolist()} == {epoch + 1}
    assert [len(batch.positions) for batch in task(tiny_model, batch_size=32).batches(0)] == [7], "there is no other"
    long = task(tiny_model, epochs=1000)
    assert long.settings.cached_views == VIEWS
    assert long.batches(VIEWS - 2)[0].views[0] == VIEWS - 1
    assert long.batches(VIEWS - 1)[0].views[0] == 1, "and from the first one on again"


def test_a_training_is_a_plain_loop_of_sgd(tiny_model: Clip) -> None:
    from multimodal.training.classes import train

    mine, other = (task(tiny_model, learning_rate=0.5) for _ in range(2))
    for _ in train(mine):
        pass
    optimizer = torch.optim.SGD(other.method.prompter.parameters(), lr=0.5, momentum=0.9, weight_decay=5e-4)
    for epoch in range(4):
        rate = 1e-5 if epoch == 0 else 0.25 * (1 + np.cos(np.pi * (epoch - 1) / 4))
        optimizer.param_groups[0]["lr"] = rate
        for batch in other.batches(epoch):
            optimizer.zero_grad()
            other.loss(batch).backward()
            optimizer.step()
    one, two = (each.method.prompter.state_dict() for each in (mine, other))
    start = task(tiny_model).method.prompter.state_dict()
    for name in one:
        assert torch.allclose(one[name], two[name], atol=1e-6)
        assert not torch.allclose(one[name], start[name], atol=1e-3)
