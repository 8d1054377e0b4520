"""Training on two processes: this one is the first, another one helps it. Each step is that of one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
import tiny
import torch

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.beir_folder import Dataset, load
from retrieval_prompts.errors import UserError
from retrieval_prompts.experiments.workbench import Workbench
from retrieval_prompts.training import retrieval as tuning
from retrieval_prompts.training.loop import Step
from retrieval_prompts.training.plan import Batch
from retrieval_prompts.training.processes.place import Place
from retrieval_prompts.training.processes.share import shares, sharing
from retrieval_prompts.training.settings import TuneSettings


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("tiny") / "data", dev=True)


@pytest.fixture(scope="module")
def dataset(data: Path) -> Dataset:
    return load(data)


@pytest.fixture(scope="module")
def shared(model: Path) -> Iterator[BiEncoder]:
    """A frozen model that another process helps to encode; without its `tower.shared` it is alone."""
    biencoder = BiEncoder.load(model, device="cpu")
    with processes.helper("tune", "--out", "unused", "--device", "cpu") as helper:
        with sharing(biencoder.tower) as first:
            assert first
            yield biencoder
        said, wrong = helper.communicate(timeout=120)
        assert (helper.returncode, said, wrong) == (0, "", "")


@pytest.fixture(autouse=True)
def never(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few steps on few queries seldom beat the frozen model."""
    monkeypatch.setattr(tuning, "GIVE_UP", None)


def settings(**given: Any) -> TuneSettings:
    return TuneSettings.of(**{"length": 3, "epochs": 2, "batch_size": 9, "learning_rate": 0.05, "folds": 1, **given})


def training(frozen: BiEncoder, dataset: Dataset, chosen: TuneSettings, checkpoint: Path | None = None) -> Any:
    """(prompts on the frozen model, their training)"""
    bench = Workbench(frozen.tower, dataset)
    biencoder = bench.attach(BiEncoder(frozen.tower), chosen)
    return biencoder, bench.train(biencoder, bench.training, chosen, checkpoint)


def gradients(biencoder: BiEncoder, loss: Any, batch: Batch) -> tuple[float, dict[str, torch.Tensor]]:
    biencoder.zero_grad()
    value = loss(batch)
    value.backward()
    found = biencoder.prompts.named_parameters()
    return value.item(), {name: each.grad.clone() for name, each in found if each.grad is not None}


WAYS: list[dict[str, Any]] = [
    {"negatives": "corpus"},
    {"negatives": "in-batch", "symmetric": True, "kind": "prefix"},
    {"negatives": "mined", "encoder": "mlp", "keep": 0.5},
    {"encoder": "feedback", "feedback": 3, "length": 2},
    {"encoder": "feedback", "feedback": 3, "length": 2, "kind": "prefix"},
    {"side": "both", "negatives": "mined"},
    {"side": "document", "kind": "prefix"},
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: ",".join(f"{key}={value}" for key, value in way.items()))
def test_a_gradient_is_that_of_one_process(
    shared: BiEncoder, dataset: Dataset, way: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "document" in way.get("side", ""):
        monkeypatch.setattr(tuning, "SAVING_TOKENS", 0)
    biencoder, run = training(shared, dataset, settings(**way))
    frozen = {name: each.clone() for name, each in shared.tower.sentence_transformer.state_dict().items()}
    loss = run.task.loss("document" in biencoder.prompts)
    helpers, found = shared.tower.shared, []
    for batch in (Batch(np.arange(9), 0), Batch(np.array([9]), 1)):  # the last batch may be one query
        two = gradients(biencoder, loss, batch)
        with monkeypatch.context() as patch:
            patch.setattr(shared.tower, "shared", None)
            one = gradients(biencoder, loss, batch)
        assert two[0] == pytest.approx(one[0], rel=1e-6)
        assert two[1].keys() == one[1].keys() and one[1]
        for name, alone in one[1].items():
            assert float((two[1][name] - alone).norm()) <= 1e-6 * float(alone.norm()), name
        found.append(one)
    assert helpers is not None and shared.tower.shared is helpers
    assert any(each.any() for each in found[0][1].values())
    weights = shared.tower.sentence_transformer.state_dict()
    assert all(torch.equal(frozen[name], weights[name]) for name in frozen)
    assert all(each.grad is None for each in shared.tower.sentence_transformer.parameters())


def test_a_training_ends_where_one_process_ends_and_goes_on_with_another_number_of_them(
    shared: BiEncoder, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def whole(checkpoint: Path | None = None) -> tuple[torch.Tensor, list[Step]]:
        biencoder, run = training(shared, dataset, settings(epochs=8, patience=4), checkpoint)
        list(run)
        return biencoder.prompts["query"]().detach().clone(), run.steps

    together, steps = whole()
    _, cut = training(shared, dataset, settings(epochs=8, patience=4), tmp_path / "state")
    for step in cut:
        if step.step == 9:
            break
    assert (tmp_path / "state").exists()
    with monkeypatch.context() as patch:
        patch.setattr(shared.tower, "shared", None)
        alone, expected = whole()
        resumed, later = whole(tmp_path / "state")
    for prompt, records in ((together, steps), (resumed, later)):
        assert float((prompt - alone).norm()) < 1e-4 * float(alone.norm())
        assert [step.dev for step in records] == pytest.approx([step.dev for step in expected], nan_ok=True)
        assert len(records) == len(expected)


def test_queries_without_a_gradient_are_encoded_as_alone(shared: BiEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    biencoder = BiEncoder(shared.tower).attach("query", length=3)
    ids = biencoder.tokenize(["amber rocket", "violin", "what does the evidence show about cedar"], "query")
    with torch.no_grad():
        two = [biencoder.embed(rows, side) for side in ("query", "document") for rows in (ids, ids[:1], [])]
        monkeypatch.setattr(shared.tower, "shared", None)
        one = [biencoder.embed(rows, side) for side in ("query", "document") for rows in (ids, ids[:1], [])]
    for a, b in zip(two, one, strict=True):
        assert torch.allclose(a, b, atol=1e-6)
        assert not a.requires_grad


# --- who is where, and who does what --------------------------------------------------------------------------------


def test_a_place_is_what_a_launcher_says() -> None:
    launched = {"RANK": "5", "WORLD_SIZE": "8", "MASTER_ADDR": "host", "MASTER_PORT": "29500"}
    assert Place.here(launched) == Place(5, 8, 5, 8)
    assert Place.here(launched | {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}) == Place(5, 8, 1, 4)
    for alone in ({}, {"WORLD_SIZE": "8"}, launched | {"MASTER_ADDR": ""}, launched | {"RANK": "0", "WORLD_SIZE": "1"}):
        place = Place.here(alone)
        assert (place.first, place.several) == (True, False)
    with pytest.raises(UserError, match="process 8 of 8"):
        Place.here(launched | {"RANK": "8"})
    for name in ("RANK", "WORLD_SIZE", "MASTER_PORT", "LOCAL_RANK"):
        with pytest.raises(UserError, match=f"{name} is 'two' and should be a number"):
            Place.here(launched | {name: "two"})


def test_texts_are_dealt_out_by_length() -> None:
    assert shares([5, 9, 1, 7, 3], 2) == [[3, 4], [1, 0, 2]]
    assert shares([4], 3) == [[], [], [0]]
    assert shares([], 2) == [[], []]
    for count in (1, 2, 3, 7):
        dealt = shares(list(range(20)), count)
        assert sorted(place for each in dealt for place in each) == list(range(20))
        assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
        assert len(dealt[0]) == min(map(len, dealt))


def test_alone_nothing_changes(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    biencoder = BiEncoder.load(model, device="cpu")
    with sharing(biencoder.tower) as first:
        assert first
        assert biencoder.tower.shared is None
