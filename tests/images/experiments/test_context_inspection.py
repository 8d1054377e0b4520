"""What a context says and does, on four colours and a tiny CLIP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from multimodal.classifier import PromptClassifier
from multimodal.data.images import ImageData
from multimodal.experiments.context_inspection import claims, inspect, vocabulary
from multimodal.report.context_page import context_report
from multimodal.towers.clip import Clip
from retrieval_prompts.errors import UserError
from retrieval_prompts.report.page import render


def fitted(clip: Clip, data: ImageData, cache: Path, **given: object) -> PromptClassifier:
    train = data.split("train")
    labels = [data.classes[label] for label in train.labels]
    options: dict[str, Any] = {
        "epochs": 2,
        "learning_rate": 0.05,
        "batch_size": 8,
        "context": 2,
        "head": "none",
        **given,
    }
    return PromptClassifier(clip, **options).fit(train.pictures, labels, data.classes, cache=cache)


@pytest.mark.parametrize(
    "given",
    [{"head": "proker"}, {"class_specific": True}, {"method": "tcp"}, {"method": "maple", "depth": 2}],
    ids=str,
)
def test_the_whole_of_a_context(tiny_model: Clip, colours: ImageData, tmp_path: Path, given: dict[str, object]) -> None:
    classifier = fitted(tiny_model, colours, tmp_path, **given)
    counted: list[int] = []
    totals: list[int] = []

    def start(total: int) -> object:
        totals.append(total)
        return counted.append

    found = inspect(classifier, colours, draws=2, cache=tmp_path, on_start=start)  # type: ignore[arg-type]
    assert totals == [sum(counted)]
    shown = found.shown
    assert shown is not None
    test = colours.split("test")
    labels = [colours.classes[label] for label in test.labels]
    assert shown.result.systems["tuned"]["accuracy"] == pytest.approx(
        classifier.without_head().score(test.pictures, labels, cache=tmp_path)
    )
    assert [each.name for each in shown.left_out] == ["vector 1", "vector 2"]
    assert shown.turned.value > 0 and shown.score.draws == 2
    made = claims(found)
    assert len(made) == 5 and not any("queries" in claim.text for claim in made)
    assert ("The head is not looked at" in " ".join(found.notes)) == ("head" in given)
    assert ("The vectors in the image tower have no words" in " ".join(found.notes)) == ("maple" in given.values())
    page = render(context_report(found, "<i>prompts"))
    assert "&lt;i&gt;prompts" in page and "Vectors of the context" in page


def test_an_untouched_context_is_the_words_that_it_began_with(tiny_model: Clip, colours: ImageData) -> None:
    from multimodal.prompts.contexts import Classes
    from multimodal.prompts.methods import method

    classifier = PromptClassifier(tiny_model, context=4)
    known = Classes(tiny_model, colours.classes, classifier.settings)
    classifier.use(method("coop").build(tiny_model, classifier.settings), known)
    words = inspect(classifier).words["context"]
    assert [vector.words[0].word for vector in words.vectors] == ["a", "photo", "of", "a"]
    assert [vector.turned for vector in words.vectors] == pytest.approx([1.0] * 4, abs=1e-5)
    assert words.sentence().endswith("each to a word that it began at or near: training put no words there.")


def test_the_vocabulary_has_no_special_tokens(tiny_model: Clip) -> None:
    words = vocabulary(tiny_model)
    assert "dog" in words.names and not any(
        "</w>" in name or name.startswith("<") for name in words.names if len(name) > 9
    )
    at = words.names.index("dog")
    row = tiny_model.text.token_rows([words.ids[at]])
    assert torch.equal(words.rows([at]), row)
    assert np.isfinite(words.length)


def test_what_has_no_context_of_its_own(tiny_model: Clip, colours: ImageData, tmp_path: Path) -> None:
    found = inspect(fitted(tiny_model, colours, tmp_path, method="cocoop", epochs=1), colours, cache=tmp_path)
    assert found.words == {} and found.shown is None
    assert found.notes == ["CoCoOp makes another context for every picture, so there is no one context to look at."]
    with pytest.raises(UserError, match="expected one random context at least, got 0"):
        inspect(fitted(tiny_model, colours, tmp_path, epochs=1), colours, draws=0)
