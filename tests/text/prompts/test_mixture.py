"""A mixture of prompts: weights by hand, the frozen model as one of the candidates, one prompt alone exactly."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import TEXTS, WIDTH

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.errors import UserError
from retrieval_prompts.files import sealed
from retrieval_prompts.prompts.folder import load_prompts, read_description
from retrieval_prompts.prompts.label import Label
from retrieval_prompts.prompts.mixture import Mixture, MixturePrompt
from retrieval_prompts.prompts.strength import between
from retrieval_prompts.serving.prompt_set import PromptSet
from retrieval_prompts.towers.injection import prompt_shape
from retrieval_prompts.towers.text import TextTower

ToyTower = Callable[..., TextTower]
FIRST, SECOND = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]


def of(*, weights: tuple[float, ...] = (1.0, 1.0), strengths: tuple[float, ...] = (1.0, 1.0)) -> MixturePrompt:
    """Two prompts of one layer and one vector, 1 and 3."""
    vectors = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)
    return MixturePrompt(vectors, Mixture(torch.tensor([FIRST, SECOND]), (0.2, 0.6), weights, strengths, 0.5))


def test_weights_by_hand() -> None:
    query = torch.tensor([[3.0, 4.0, 0.0]])  # cosines 0.6 and 0.8: 0.4 and 0.2 above the floors
    frozen, first, second = 1.0, math.exp(0.8), math.exp(0.4)
    total = frozen + first + second
    expected = torch.tensor([[frozen, first, second]]) / total
    torch.testing.assert_close(of().weights(query), expected)
    prompts, share = of()(query)
    torch.testing.assert_close(share, torch.tensor([(first + second) / total]))
    torch.testing.assert_close(prompts[0].flatten(), torch.tensor([(first + 3 * second) / (first + second)]))
    prompts, share = of(strengths=(0.5, 1.0))(query)
    torch.testing.assert_close(share, torch.tensor([(0.5 * first + second) / total]))
    twice = of(weights=(2.0, 0.0)).weights(query)
    torch.testing.assert_close(twice, torch.tensor([[1.0, 2 * first, 0.0]]) / (1 + 2 * first))


def test_what_is_far_less_likely_has_no_weight() -> None:
    sharp = of()
    sharp.about = Mixture(sharp.keys, (0.2, 0.2), (1.0, 1.0), (1.0, 1.0), 0.01)
    weights = sharp.weights(torch.tensor([FIRST, SECOND, [0.0, 0.0, 1.0]]))
    assert weights.tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
    prompts, share = sharp(torch.tensor([FIRST, SECOND]))
    assert prompts.flatten().tolist() == [1, 3]
    assert share.tolist() == [1, 1]
    ones = (1.0,) * 300
    many = MixturePrompt(torch.ones(300, 1, 1, 1), Mixture(torch.ones(300, 1), ones, ones, ones, 1.0))
    assert many.weights(torch.ones(1, 1)).sum().item() == pytest.approx(1)


def mixed(tower: TextTower, kind: str, floors: tuple[float, float], temperature: float = 1e-3) -> BiEncoder:
    """Prompts that are tuned on queries like the first and the second text, and as constant prompts."""
    keys = torch.nn.functional.normalize(torch.from_numpy(BiEncoder(tower).encode_query(list(TEXTS[:2]))), dim=1)
    both = [BiEncoder(tower).attach(kind=kind, length=3, seed=seed).prompts["query"]() for seed in (1, 2)]
    about = Mixture(keys, floors, (1.0, 1.0), (1.0, 1.0), temperature)
    return BiEncoder(tower, kind, {"query": MixturePrompt(torch.stack(both).detach(), about)})


def test_a_query_like_none_is_the_frozen_model_and_one_like_a_prompt_that_prompt(tower: TextTower, kind: str) -> None:
    frozen = BiEncoder(tower).encode_query(list(TEXTS))
    assert np.array_equal(mixed(tower, kind, (1.1, 1.1)).encode_query(list(TEXTS)), frozen)
    for number in (0, 1):
        alone = BiEncoder(tower).attach(kind=kind, length=3, seed=number + 1)
        always = mixed(tower, kind, (-3.0, 9.0) if number == 0 else (9.0, -3.0))
        assert np.array_equal(always.encode_query(list(TEXTS)), alone.encode_query(list(TEXTS)))
    model = mixed(tower, kind, (0.999, 0.999))
    assert np.array_equal(model.encode_query(list(TEXTS[3:])), BiEncoder(tower).encode_query(list(TEXTS[3:])))
    found = model.encode_query(list(TEXTS))
    assert (np.linalg.norm(found[:2] - frozen[:2], axis=1) > 1e-3).all()
    assert np.abs(found[2:] - frozen[2:]).max() < 1e-6
    model.strength = 0
    assert np.array_equal(model.encode_query(list(TEXTS)), frozen)


def test_it_is_saved_and_served(tower: TextTower, kind: str, tmp_path: Path) -> None:
    model = mixed(tower, kind, (0.5, 0.5), 0.5)
    model.label = Label("both", "of two", "1.0")
    expected = model.encode_query(list(TEXTS))
    model.save(tmp_path / "both")
    again = BiEncoder.load(tower.name, tmp_path / "both", device="cpu")
    assert np.array_equal(again.encode_query(list(TEXTS)), expected)
    assert again.label == model.label
    assert again.identity()["document_prompt"] is None, "documents are those of the frozen model"
    assert read_description(tmp_path / "both")["tensors"]["query"] == list(prompt_shape(tower, kind, 6))
    again.save(tmp_path / "again")
    for name in ("prompt.json", "prompt.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "both" / name).read_bytes()
    BiEncoder(tower).attach(kind=kind, length=2, seed=5).save(tmp_path / "other")
    prompts = PromptSet(tower)
    assert [prompts.add(tmp_path / name) for name in ("both", "other")] == ["both", "other"]
    served = prompts.encode_query(list(TEXTS), ["both", "other", "both", None, "both"])
    assert np.abs(served - expected)[[0, 2, 4]].max() < 1e-6


def test_a_strength_is_a_point_on_the_line_to_the_whole_mixture(toy_tower: ToyTower, tmp_path: Path) -> None:
    tower = toy_tower("bert")
    model = mixed(tower, "input", (0.5, 0.5), 0.5)
    ends = BiEncoder(tower).encode_query(list(TEXTS)), model.encode_query(list(TEXTS))
    model.save(tmp_path / "both")
    prompts = PromptSet(tower)
    prompts.add(tmp_path / "both")
    model.strength = 0.5
    expected = between(*ends, 0.5, unit=tower.unit_length)
    assert np.abs(model.encode_query(list(TEXTS)) - expected).max() < 1e-6
    assert np.abs(prompts.encode_query(list(TEXTS), "both", 0.5) - expected).max() < 1e-6


def test_what_holds_one_prompt_for_all_refuses_it(toy_tower: ToyTower, tmp_path: Path) -> None:
    model = mixed(toy_tower("bert"), "input", (0.5, 0.5))
    for refused in (lambda: model.export(tmp_path / "out"), model.as_sentence_transformer):
        with pytest.raises(UserError, match="a mixture is weighed anew for each query by its frozen vector, and a"):
            refused()
    with pytest.raises(UserError, match=r"encode queries with BiEncoder\.encode_query"):
        model.prompt("query")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.0}, "has a missing or damaged field (mixture"),
        ({"weights": [-1.0, 1.0]}, "has a missing or damaged field (mixture"),
        ({"strengths": [2.0, 1.0]}, "strength must be from 0"),
        ({"floors": "much"}, "has a missing or damaged field ("),
        ({"floors": [0.1]}, "expected 2 prompts of one length, a key, a floor and a weight each, got 6"),
    ],
)
def test_a_garbled_mixture(change: dict[str, object], message: str, toy_tower: ToyTower, tmp_path: Path) -> None:
    tower = toy_tower("bert")
    mixed(tower, "input", (0.5, 0.5)).save(tmp_path / "both")
    file = tmp_path / "both" / "prompt.json"
    about = {name: value for name, value in json.loads(file.read_text()).items() if name != "sha256"}
    about["mixture"] |= change
    file.write_text(json.dumps(sealed(about)))
    with pytest.raises(UserError) as error:
        BiEncoder.with_prompts(tower, load_prompts(tmp_path / "both"))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_keys_of_another_dimension(toy_tower: ToyTower, tmp_path: Path) -> None:
    model = mixed(toy_tower("bert"), "input", (0.5, 0.5))
    model.save(tmp_path / "both")
    saved = load_prompts(tmp_path / "both")
    assert saved.mixture is not None
    assert saved.mixture.keys.shape == (2, WIDTH)
    with pytest.raises(UserError):
        BiEncoder.with_prompts(toy_tower("bert", dense=16), saved)
