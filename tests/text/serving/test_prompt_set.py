"""Several prompts over one frozen model: each query gets what its own alone gives it, whatever its mates have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toys import LONG, TEXTS

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.errors import UserError
from retrieval_prompts.prompts.feedback import Start
from retrieval_prompts.prompts.label import Label
from retrieval_prompts.serving.prompt_set import PromptSet
from retrieval_prompts.towers.injection import prompt_shape
from retrieval_prompts.towers.text import TextTower
from retrieval_prompts.vectors.index import Index

ToyTower = Callable[..., TextTower]
ALL = [*TEXTS, LONG]
DOCUMENTS = ["a frozen retriever", "the lazy dog", "seven wizards box", "search the corpus", "print x[0]"]


def saved(tower: TextTower, folder: Path, name: str, strength: float = 1.0, **settings: Any) -> Path:
    model = BiEncoder(tower).attach("query", **settings)
    model.strength = strength
    model.save(folder / name)
    return folder / name


def start_of(tower: TextTower, kind: str) -> Start:
    layers, _, width = prompt_shape(tower, kind, 1)
    draw = torch.Generator().manual_seed(0)
    return Start(0.1 * torch.randn(tower.dimension, layers * width, generator=draw), torch.zeros(layers * width))


def index_of(tower: TextTower) -> Index:
    frozen = BiEncoder(tower)
    vectors = tower.comparable(frozen.encode_document(DOCUMENTS))
    return Index.build(vectors, None, [str(number) for number in range(len(DOCUMENTS))], encoder=frozen.identity())


def test_a_mixed_batch_is_each_prompt_alone(tower: TextTower, kind: str, tmp_path: Path) -> None:
    index = index_of(tower)
    folders = [
        saved(tower, tmp_path, "two", kind=kind, length=2),
        saved(tower, tmp_path, "also two", kind=kind, length=2, seed=1),
        saved(tower, tmp_path, "five", 0.5, kind=kind, length=5, seed=2),
        saved(tower, tmp_path, "other", kind="prefix" if kind == "input" else "input", length=3),
        saved(tower, tmp_path, "reads", kind=kind, encoder="feedback", start=start_of(tower, kind), feedback_bm25=0.0),
    ]
    prompts = PromptSet(tower, index)
    assert [prompts.add(folder) for folder in folders] == ["two", "also two", "five", "other", "reads"]
    names = [None, *prompts.names]
    texts = [text for text in ALL for _ in names]
    chosen = names * len(ALL)
    strengths = [(None, 1.0, 0.25, 0.0)[place % 4] for place in range(len(texts))]
    together = prompts.encode_query(texts, chosen, strengths)
    for row, (text, name, strength) in enumerate(zip(texts, chosen, strengths, strict=True)):
        alone = BiEncoder(tower)
        if name is not None:
            alone = BiEncoder.load(tower.name, tmp_path / name, strength=strength, device="cpu").bind(index)
        assert np.abs(alone.encode_query(text) - together[row]).max() < 1e-6
    backwards = prompts.encode_query(texts[::-1], chosen[::-1], strengths[::-1])[::-1]
    assert np.abs(backwards - together).max() < 1e-6


def test_frozen_and_strength_0_are_the_frozen_model(tower: TextTower, kind: str, tmp_path: Path) -> None:
    prompts = PromptSet(tower)
    prompts.add(saved(tower, tmp_path, "one", kind=kind, length=3))
    frozen = BiEncoder(tower).encode_query(ALL)
    assert np.array_equal(prompts.encode_query(ALL), frozen)
    assert np.array_equal(prompts.encode_query(ALL, "one", 0), frozen)
    assert np.array_equal(prompts.encode_query(ALL, ["one", None] * 3, [0, 1] * 3), frozen)
    one = BiEncoder.load(tower.name, tmp_path / "one", device="cpu")
    assert np.abs(prompts.encode_query(ALL, "one") - one.encode_query(ALL)).max() < 1e-6
    assert prompts.encode_query([]).shape == (0, tower.dimension)


def test_models_that_do_not_pool_the_prompt_or_are_not_of_unit_length(toy_tower: ToyTower, tmp_path: Path) -> None:
    for number, options in enumerate(({"include_prompt": False}, {"normalize": False})):
        tower = toy_tower("bert", **options)
        prompts = PromptSet(tower)
        for length in (2, 5):
            prompts.add(saved(tower, tmp_path, f"{number} {length}", length=length))
        names = prompts.names * 3
        together = prompts.query_vectors(ALL, names, 0.5)
        for row, (text, name) in enumerate(zip(ALL, names, strict=True)):
            alone = BiEncoder.load(tower.name, tmp_path / name, strength=0.5, device="cpu")
            assert np.abs(alone.query_vectors([text])[0] - together[row]).max() < 1e-6


def test_different_lengths_of_input_prompts_share_a_pass(
    toy_tower: ToyTower, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower = toy_tower("bert")
    prompts = PromptSet(tower)
    for length in (2, 3, 5):
        prompts.add(saved(tower, tmp_path, f"{length}", length=length))
    passes = []

    def pool(features: dict[str, Any]) -> torch.Tensor:
        passes.append(len(features["inputs_embeds"]))
        return TextTower.pool(tower, features)

    monkeypatch.setattr(tower, "pool", pool)
    prompts.encode_query(["fox", "search", "the lazy dog"], prompts.names)
    assert passes == [3]


def test_names(toy_tower: ToyTower, tmp_path: Path) -> None:
    tower = toy_tower("bert")
    folder = saved(tower, tmp_path, "folder")
    named = BiEncoder(tower).attach("query")
    named.label = Label("claims")
    named.save(tmp_path / "other")
    prompts = PromptSet.open([folder, tmp_path / "other"], device="cpu")
    assert prompts.names == ["folder", "claims"]
    assert PromptSet.open({"a": folder, "b": folder}, model=tower.name, device="cpu").names == ["a", "b"]
    with pytest.raises(UserError, match=r"^there are prompts named claims already; give .*folder another name$"):
        prompts.add(folder, "claims")
    for chosen in ("other", ["folder", "other"]):
        with pytest.raises(UserError, match=r"^there are no prompts named 'other'; there are folder, claims$"):
            prompts.encode_query(["fox", "dog"], chosen)
    prompts.remove("folder")
    assert prompts.names == ["claims"]


def test_what_cannot_be_served_together(toy_tower: ToyTower, tmp_path: Path) -> None:
    tower = toy_tower("bert")
    prompts = PromptSet(tower)
    BiEncoder(tower).attach("both").save(tmp_path / "both")
    with pytest.raises(UserError, match="both has a document prompt, so its index is another one"):
        prompts.add(tmp_path / "both")
    other = saved(toy_tower("bert", seed=1), tmp_path, "other")
    with pytest.raises(UserError, match=r"other belong to .* not to "):
        prompts.add(other)
    prompts.add(saved(tower, tmp_path, "reads", encoder="feedback", start=start_of(tower, "input")))
    with pytest.raises(UserError, match="there is no index to search"):
        prompts.encode_query(["fox"], "reads")
    with pytest.raises(UserError, match="for each of 2 queries, got 1"):
        prompts.encode_query(["fox", "dog"], ["reads"])
    with pytest.raises(UserError, match="expected a strength, or None, for each of 2 queries, got 3"):
        prompts.encode_query(["fox", "dog"], None, [1, 1, 1])
    with pytest.raises(UserError, match="strength must be from 0"):
        prompts.encode_query(["fox"], "reads", 2)
    with pytest.raises(UserError, match="expected at least one prompt folder, got none"):
        PromptSet.open([])
