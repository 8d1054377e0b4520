"""What experiments on pictures find, as dataclasses; `to_json` says which of it a result file holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from retrieval_prompts.experiments.records.provenance import Provenance

if TYPE_CHECKING:
    from multimodal.evaluation.confusion import Confusion
    from multimodal.evaluation.rankings import Rankings
    from retrieval_prompts.evaluation.significance import Comparison
    from retrieval_prompts.training.loop import Step


@dataclass
class Result:
    """What an experiment found. Rankings, steps and facts are no part of its JSON.

    Args:
        model, pretrained: names of the frozen model.
        systems: name -> its metrics, as fractions; see the kinds of results below.
        images_encoded: those that were encoded now, not found in the cache.
        seconds: part of the work -> its seconds.
        settings: of the evaluation and, where prompts were tuned, of the training: JSON values.
        rankings: what the systems ranked, one entry a part or direction; empty unless it was asked for.
        steps: a record for each training step of this run.
        facts: what people want to know besides, a line each.
        provenance: when, with which version and by which command it was made.
    """

    dataset: str
    model: str
    pretrained: str | None
    protocol: str
    systems: Mapping[str, Any] = field(default_factory=dict)
    images_encoded: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    rankings: Sequence[Rankings] = ()
    steps: Sequence[Step] = ()
    facts: Sequence[str] = ()
    provenance: Provenance = field(default_factory=Provenance.now)

    def to_json(self) -> dict[str, Any]:
        """{"dataset", "model", "pretrained", "protocol", "systems", "images_encoded", "seconds", "settings",
        "provenance"}"""
        return {
            "dataset": self.dataset,
            "model": self.model,
            "pretrained": self.pretrained,
            "protocol": self.protocol,
            "systems": dict(self.systems),
            **self._compared(),
            "images_encoded": self.images_encoded,
            "seconds": self.seconds,
            "settings": self.settings,
            "provenance": self.provenance.to_json(),
        }

    def _compared(self) -> dict[str, Any]:
        """What a kind of result has between its systems and its accounts."""
        return {}


@dataclass
class ClassResult(Result):
    """Of labelled pictures. A system holds the mean over seeds of each metric (None: it has no answer) and, where it
    depends on a seed, "seeds" (how many), "std" (the sample deviation; None of one seed) and "per_seed".

    Args:
        tests: "", "base" or "new" -> "SYSTEM_vs_BASELINE" -> the paired comparison of the accuracy by pictures.
        confusions: "", "base" or "new" -> system -> which classes it takes for which, of its first seed.
        labelled: class -> pictures of the train split, where something was trained on it.
        preferred: the system that held-out pictures take, where there was a choice; empty: not known.
        shots: of these that were learned from, a class; None: all.

    Confusions and what was learned from are no part of the JSON.
    """

    tests: Mapping[str, Mapping[str, Comparison]] = field(default_factory=dict)
    confusions: Mapping[str, Mapping[str, Confusion]] = field(default_factory=dict)
    labelled: Mapping[str, int] = field(default_factory=dict)
    shots: int | None = None
    preferred: str = ""

    def _compared(self) -> dict[str, Any]:
        """{"tests"}: of all classes, or of base and new apart."""
        plain = {
            part: {name: test.as_dict() for name, test in tests.items()} for part, tests in self.tests.items() if tests
        }
        return {"tests": plain.get("", plain)} if plain else {}


@dataclass
class CaptionResult(Result):
    """Of captioned pictures: a system holds "i2t" and "t2i" -> "r@1", "r@5", "r@10".

    Args:
        tests: of tuned against zero-shot: "i2t", "t2i" -> the paired comparison of r@10 by pictures.
        images, captions: how many were compared; none where nothing was evaluated.
        captions_cut: how many of them are too long for the model.
        split: of the captions, or "all".
    """

    tests: Mapping[str, Comparison] = field(default_factory=dict)
    images: int = 0
    captions: int = 0
    captions_cut: int = 0
    split: str = "all"

    def _compared(self) -> dict[str, Any]:
        """{"tests", "images", "captions", "captions_cut"}, where something was evaluated."""
        if not self.systems:
            return {}
        tests = {way: test.as_dict() for way, test in self.tests.items()}
        return {
            "tests": {"tuned_vs_zero-shot": tests} if tests else {},
            "images": self.images,
            "captions": self.captions,
            "captions_cut": self.captions_cut,
        }


Found = ClassResult | CaptionResult
