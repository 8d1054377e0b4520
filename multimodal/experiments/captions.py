"""One experiment on captioned images: tune a context, save it, and compare both directions of retrieval."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from multimodal.classifier import PromptClassifier
from multimodal.data import captions
from multimodal.data.captions import Captioned, load_captions
from multimodal.evaluation.captions import Pairs, paired_tests
from multimodal.evaluation.feedback import ranks
from multimodal.evaluation.rankings import TOP
from multimodal.experiments.results import CaptionResult
from multimodal.towers.clip import Clip
from multimodal.training.captions import Tuned, tune_captions
from multimodal.training.settings import Settings
from multimodal.vectors.texts import Texts, context_length, encode_texts, warn_of_cut
from retrieval_prompts.experiments.records.stopwatch import Stopwatch
from retrieval_prompts.experiments.run import IDENTITY, PromptOutput, StepLog, digest

if TYPE_CHECKING:
    from rich.table import Table
    from torch import nn

    from multimodal.training.classes import OnStep

METRICS = tuple((way, f"r@{k}") for way in ("i2t", "t2i") for k in (1, 5, 10))


@dataclass(frozen=True)
class CaptionSplits:
    """A caption file to tune on: its train split, or all that is not split, and its test split if it has one."""

    file: Path
    train: Captioned
    test: Captioned | None

    @classmethod
    def read(cls, file: Path, images: Path | None = None) -> CaptionSplits:
        """`images`: the folder of its pictures; see `load_captions`, which says what is refused."""
        split = captions.splits(file)
        train = load_captions(file, "train" if split else None, images=images)
        return cls(file, train, load_captions(file, "test", images=images) if "test" in split else None)


def tune(
    clip: Clip,
    data: CaptionSplits,
    settings: Settings,
    out: Path | str | PromptOutput | None = None,
    *,
    cache: Path | None = None,
    on_step: OnStep | None = None,
    keep_rankings: bool = False,
) -> CaptionResult:
    """Tune a context on the train split, save it, and evaluate it on the test split if there is one.

    Args:
        out: the prompt folder, or a `PromptOutput` where one that exists may be replaced. Training is checkpointed
            beside it, and goes on from there when it was interrupted.
        on_step: called with each record and the number of all steps.
        keep_rankings: the result holds what the systems ranked.

    Raises:
        UserError: for data or settings that cannot be trained on; nothing is then written.
    """
    with PromptOutput.of(out) as output:
        return _tune(clip, data, settings, output, cache, on_step, keep_rankings)


def _tune(
    clip: Clip,
    data: CaptionSplits,
    settings: Settings,
    output: PromptOutput,
    cache: Path | None,
    on_step: OnStep | None,
    keep_rankings: bool,
) -> CaptionResult:
    log, train = StepLog(on_step), data.train
    facts = [f"{train.name}: {len(train.pictures):,} training images, {sum(map(len, train.captions)):,} captions"]
    names = [picture.name for picture in train.pictures]
    run = digest([asdict(settings), clip.fingerprint, names, train.captions])
    if output.folder is not None and output.made_by(run):
        saved = PromptClassifier.load(output.folder, clip)
        found_before = saved.training | {"images_encoded": 0, "seconds": {}}
        tuned = Tuned(saved.method.prompter, saved.settings, saved.strength, found_before)
    else:
        with output.checkpoint(run) as checkpoint:
            tuned = tune_captions(clip, train, settings, cache=cache, checkpoint=checkpoint, on_step=log)
        tuned.training[IDENTITY] = run
        output.save(lambda folder, overwrite: tuned.save(folder, clip, overwrite=overwrite))
    dev = tuned.training["dev"]
    facts += [
        f"dev {dev['metric']}: zero-shot {dev['zero-shot']:.4f}, tuned {dev['tuned']:.4f}",
        f"strength {tuned.strength:g}" + (": no prompt beat zero-shot on dev" if tuned.strength == 0 else ""),
    ]
    if data.test is None:
        facts.append(f"{data.file} has no test split, so there is no evaluation")
        found = _result(clip, train)
    else:
        prompts = tuned.prompter, tuned.strength
        found = evaluate(clip, data.test, prompts, cache=cache, keep_rankings=keep_rankings)
    found.images_encoded += tuned.training["images_encoded"]
    found.seconds = {**tuned.training["seconds"], **found.seconds}
    found.settings = {**asdict(settings), "strength": tuned.strength, "dev": dev}
    found.steps, found.facts = log.steps, facts
    return found


def evaluate(
    clip: Clip,
    data: Captioned,
    prompts: tuple[nn.Module, float] | None = None,
    *,
    cache: Path | None = None,
    keep_rankings: bool = False,
) -> CaptionResult:
    """Both directions of caption retrieval, zero-shot and, with prompts, tuned.

    Args:
        prompts: (prompter, strength); see `PromptClassifier.search_prompts`.
        keep_rankings: the result holds what the systems ranked.
    """
    result, watch = _result(clip, data), Stopwatch()
    with watch("images"):
        pairs = Pairs.of(clip, data, cache)
    texts = Texts(clip, pairs.captions)
    prompter, strength = prompts or (None, None)
    length = context_length(prompter, texts)
    warn_of_cut(texts, length)
    keep = TOP if keep_rankings else 0
    with watch("zero-shot"):
        found = {"zero-shot": pairs.ranks(encode_texts(texts), keep)}
    if prompts is not None:
        with watch("tuned"):
            found["tuned"] = ranks(pairs, texts, *prompts, keep)
        result.tests = paired_tests(found["zero-shot"], [found["tuned"]])
    result.systems = {system: ranks.recalls() for system, ranks in found.items()}
    result.images, result.captions, result.captions_cut = len(pairs.images), len(texts), len(texts.cut(length))
    result.images_encoded, result.seconds = pairs.encoded, watch.seconds
    result.settings = {"split": data.split, "prompts": None, "strength": strength}
    result.rankings = pairs.rankings(found) if keep_rankings else ()
    return result


def table(result: CaptionResult) -> Table:
    """A result as a table to print: percentages, a row a system."""
    from retrieval_prompts.evaluation.tables import metrics_table, rich_table

    columns = {(way, metric): f"{'I→T' if way == 'i2t' else 'T→I'} {metric.upper()}" for way, metric in METRICS}
    header, rows = metrics_table(
        {
            name: {title: values[way][metric] for (way, metric), title in columns.items()}
            for name, values in result.systems.items()
        }
    )
    return rich_table(rows, header, title=f"{result.dataset}, retrieval")


def _result(clip: Clip, data: Captioned) -> CaptionResult:
    return CaptionResult(data.name, clip.title, clip.pretrained, "retrieval", split=data.split or "all")
