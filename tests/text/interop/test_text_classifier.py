"""The classifier of texts: scikit-learn's contract, what it learns, what it chooses and says, its folder."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator

from retrieval_prompts import BiEncoder, PromptTextClassifier, UserError
from retrieval_prompts.cli import artifacts
from retrieval_prompts.prompts.folder import load_prompts
from retrieval_prompts.towers.text import TextTower, load_tower
from retrieval_prompts.training.tasks import two_parts
from retrieval_prompts.training.tasks.two_parts import HeldOut, best, mixed

STEPS: dict[str, Any] = {"max_steps": 6, "learning_rate": 0.05, "length": 2}


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> TextTower:
    return load_tower(tiny.write_model(tmp_path_factory.mktemp("model")), device="cpu")


def examples(each: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Texts of five words in a frame: those of "a_stone" are of the first ten words, of "b_plant" of the next."""
    random = np.random.default_rng(seed)
    texts, labels = [], []
    for number in range(2 * each):
        words = tiny.WORDS[10 * (number % 2) : 10 * (number % 2) + 10]
        texts.append(" ".join([*tiny.FRAME, *random.choice(words, 5)]))
        labels.append(["a_stone", "b_plant"][number % 2])
    return texts, labels


NAMES = {"a_stone": " ".join(tiny.WORDS[:10]), "b_plant": " ".join(tiny.WORDS[10:20])}


def test_it_learns_and_says_what_it_took(tower: TextTower) -> None:
    before = {name: value.clone() for name, value in tower.model.state_dict().items()}
    classifier = PromptTextClassifier(tower, NAMES, **STEPS).fit(*examples(8))
    texts, labels = examples(20, seed=1)
    assert classifier.score(texts, labels) > 0.8
    assert classifier.classes_.tolist() == ["a_stone", "b_plant"]
    found = classifier.predict_proba(texts)
    assert found.shape == (40, 2) and np.allclose(found.sum(axis=1), 1)
    assert "16 training examples that were held out" in classifier.choice_
    assert set(classifier.two_parts_.held_out) == {"names", "names+prompt", "head", "taken"}
    for name, value in tower.model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_the_same_data_gives_the_same_classifier(tower: TextTower) -> None:
    texts, labels = examples(6)
    made = [PromptTextClassifier(tower, NAMES, **STEPS).fit(texts, labels).predict_proba(texts) for _ in range(2)]
    assert np.array_equal(made[0], made[1])


def test_zero_shot_is_the_frozen_model(tower: TextTower) -> None:
    classifier = PromptTextClassifier(tower, NAMES).zero_shot(NAMES)
    texts, _ = examples(4)
    frozen = BiEncoder(tower)
    scores = frozen.query_vectors(texts) @ tower.comparable(frozen.encode_document(list(NAMES.values()))).T
    assert classifier.predict(texts).tolist() == [list(NAMES)[best] for best in scores.argmax(axis=1)]
    assert "no examples" in classifier.choice_
    assert PromptTextClassifier(tower).zero_shot(["b_plant", "a_stone"]).classes_.tolist() == ["a_stone", "b_plant"]


@pytest.mark.parametrize("head", ["names", "linear"])
def test_one_part_alone(tower: TextTower, head: str) -> None:
    classifier = PromptTextClassifier(tower, NAMES, head=head, **STEPS).fit(*examples(6))
    assert classifier.two_parts_.share == (head == "linear")
    assert (classifier.two_parts_.probe is not None) == (head == "linear")


def test_without_steps_there_is_no_prompt(tower: TextTower) -> None:
    classifier = PromptTextClassifier(tower, NAMES, max_steps=0).fit(*examples(6))
    assert not classifier.two_parts_.biencoder.prompts and classifier.two_parts_.strength == 0
    assert "names+prompt" not in classifier.two_parts_.held_out


def test_one_example_a_class_holds_nothing_out(tower: TextTower) -> None:
    classifier = PromptTextClassifier(tower, NAMES, **STEPS).fit(*examples(1))
    assert classifier.choice_.endswith("nothing was held out to choose by")
    assert classifier.two_parts_.share == classifier.two_parts_.biencoder.strength == 0.5


def test_the_candidate_with_the_largest_likelihood_is_taken() -> None:
    """The names know nothing, the head knows it all; then the other way round."""
    labels, nothing = np.array([0, 1, 2] * 6), np.zeros((18, 3))
    sure = np.log(np.full((18, 3), 0.05) + 0.85 * np.eye(3)[labels])
    shares, none = two_parts.SHARES["auto"], {0.0: nothing}
    assert best(HeldOut(labels, none, {0.0: sure}), shares).share > 0
    assert best(HeldOut(labels, {0.0: sure}, none), shares).share < 1
    strong = {0.0: nothing, 0.5: nothing, 1.0: sure}
    assert best(HeldOut(labels, strong, dict.fromkeys(strong, nothing)), [0.0]).strength == 1
    same = {0.0: sure, 1.0: sure}
    assert best(HeldOut(labels, same, same), shares).strength == 0  # of equals the simplest
    assert np.array_equal(mixed(nothing, sure, 1.0, 0.05), sure)


# --- scikit-learn ---------------------------------------------------------------------------------------------------


def test_the_checks_of_scikit_learn(tower: TextTower) -> None:
    with warnings.catch_warnings():  # it says that the other checks want numbers
        warnings.simplefilter("ignore")
        check_estimator(PromptTextClassifier(tower))


def test_it_can_be_cloned_searched_and_put_into_a_pipeline(tower: TextTower) -> None:
    texts, labels = examples(6)
    classifier = PromptTextClassifier(tower, NAMES, **STEPS)
    copy = clone(classifier)
    assert copy.get_params() == classifier.get_params() and copy.model is tower
    assert copy.set_params(length=3).length == 3
    steps = Pipeline([("as they are", FunctionTransformer()), ("classifier", clone(classifier))])
    assert cross_val_score(steps, np.array(texts), labels, cv=2).shape == (2,)
    search = GridSearchCV(classifier, {"max_steps": [0, 4]}, cv=2).fit(texts, labels)
    assert search.best_params_["max_steps"] in (0, 4)
    assert set(search.predict(texts)) <= set(labels)


@pytest.mark.parametrize("kind", [list, np.array])
@pytest.mark.parametrize("labels", [["x", "y"], [7, 3], [True, False]])
def test_labels_of_any_kind(tower: TextTower, kind: Any, labels: list[Any]) -> None:
    texts, names = examples(3)
    given = kind([labels[name == "b_plant"] for name in names])
    classifier = PromptTextClassifier(tower, max_steps=0).fit(np.array(texts), given)
    assert classifier.classes_.tolist() == sorted(labels)
    assert set(classifier.predict(texts).tolist()) <= set(labels)


def test_nothing_to_predict(tower: TextTower) -> None:
    classifier = PromptTextClassifier(tower).zero_shot(["x", "y"])
    assert classifier.predict_proba([]).shape == (0, 2)
    assert classifier.predict([]).shape == (0,)


def test_mistakes_are_said(tower: TextTower) -> None:
    classifier = PromptTextClassifier(tower)
    with pytest.raises(NotFittedError):
        classifier.predict(["a"])
    with pytest.raises(UserError, match=r"got 2 texts and labels of shape 1"):
        classifier.fit(["a", "b"], ["x"])
    with pytest.raises(UserError, match=r"a text at position 1 .* got the float"):
        classifier.fit(["a", 1.5], ["x", "y"])  # type: ignore[list-item]
    with pytest.raises(UserError, match="at least two classes, got x; predict without examples: zero_shot"):
        classifier.fit(["a", "b"], ["x", "x"])
    with pytest.raises(UserError, match="at least two labels, got none"):
        classifier.zero_shot([])
    with pytest.raises(UserError, match="head must be auto, names or linear, got 'both'"):
        PromptTextClassifier(tower, head="both").fit(["a", "b"], ["x", "y"])
    with pytest.raises(UserError, match="--max-steps must be 0 or more, got -1"):
        PromptTextClassifier(tower, max_steps=-1).fit(["a", "b"], ["x", "y"])
    with pytest.raises(UserError, match="names are given for labels that no text has: z"):
        PromptTextClassifier(tower, {"z": "last"}).fit(["a", "b"], ["x", "y"])
    with pytest.raises(UserError, match="the name of a model or a TextTower, got int"):
        PromptTextClassifier(3).fit(["a", "b"], ["x", "y"])  # type: ignore[arg-type]


# --- the folder -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["auto", "names", "linear"])
def test_a_folder_gives_the_same_classifier(tower: TextTower, tmp_path: Path, head: str) -> None:
    texts, labels = examples(6)
    classifier = PromptTextClassifier(tower, NAMES, head=head, **STEPS).fit(texts, labels)
    classifier.save(tmp_path / "kept")
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {"prompt.json", "prompt.safetensors"}
    again = PromptTextClassifier.load(tmp_path / "kept", tower)
    assert np.array_equal(again.predict_proba(texts), classifier.predict_proba(texts))
    assert again.choice_ == classifier.choice_ and again.classes_.tolist() == classifier.classes_.tolist()
    assert again.get_params() == classifier.get_params()
    (verdict,) = artifacts.verdicts(tmp_path / "kept")
    assert verdict.sound and verdict.kind == "prompts"
    with pytest.raises(UserError, match="exists already"):
        classifier.save(tmp_path / "kept")
    classifier.save(tmp_path / "kept", overwrite=True)


def test_numbers_stay_numbers(tower: TextTower, tmp_path: Path) -> None:
    PromptTextClassifier(tower).zero_shot([3, 1]).save(tmp_path / "kept")
    assert PromptTextClassifier.load(tmp_path / "kept", tower).classes_.tolist() == [1, 3]


def test_settings_of_numpy_are_kept(tower: TextTower, tmp_path: Path) -> None:
    """As a search over np.arange sets them."""
    given: dict[str, Any] = {"max_steps": np.int64(1), "length": np.int64(2), "random_state": np.int64(3)}
    PromptTextClassifier(tower, **given).fit(*examples(2)).save(tmp_path / "kept")
    again = PromptTextClassifier.load(tmp_path / "kept", tower).get_params()
    assert {name: again[name] for name in given} == given


def test_another_model_and_damage_are_refused(tower: TextTower, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    PromptTextClassifier(tower, NAMES, **STEPS).fit(*examples(4)).save(folder)
    other = load_tower(tiny.write_model(tmp_path, seed=1), device="cpu")
    with pytest.raises(UserError, match="model"):
        PromptTextClassifier.load(folder, other)
    with pytest.raises(UserError, match="prompts for texts, got prompts for labels of texts; use"):
        load_prompts(folder)
    about = json.loads((folder / "prompt.json").read_text())
    (folder / "prompt.json").write_text(json.dumps(about | {"share": 2}))
    with pytest.raises(UserError, match=r"prompt\.json"):
        PromptTextClassifier.load(folder, tower)
    (verdict,) = artifacts.verdicts(folder)
    assert verdict.sound is False


def test_training_is_split_as_asked(monkeypatch: pytest.MonkeyPatch, tower: TextTower) -> None:
    """No held-out example is trained on in its fold; one that is alone in its class always is."""
    seen: list[set[str]] = []
    plain = two_parts.prompted

    def spy(data: two_parts.Examples, positions: np.ndarray) -> BiEncoder:
        seen.append({data.texts[at] for at in positions})
        return plain(data, positions)

    monkeypatch.setattr(two_parts, "prompted", spy)
    texts, labels = examples(3)
    PromptTextClassifier(tower, **STEPS).fit([*texts, "alone"], [*labels, "c"])
    folds = seen[:3]  # as many as there are examples a class
    assert all("alone" in fold for fold in folds)
    assert [len(set(texts) - fold) for fold in folds] == [2, 2, 2]
    monkeypatch.setattr(two_parts, "ENOUGH", 3)
    classifier = PromptTextClassifier(tower, **STEPS).fit(texts, labels)
    assert "on 4 training examples that were held out" in classifier.choice_
