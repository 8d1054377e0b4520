"""What `--pairs` asks for: pairs that are made, or none where people's judgements are trained on."""

from __future__ import annotations

import warnings
from dataclasses import asdict

from retrieval_prompts.data.beir_folder import Dataset
from retrieval_prompts.data.judgements import Qrels
from retrieval_prompts.errors import DataWarning, UserError
from retrieval_prompts.evaluation.words import count
from retrieval_prompts.experiments.pairs.cloze import crops, titles
from retrieval_prompts.experiments.pairs.generated import Writer, examples, generated
from retrieval_prompts.experiments.pairs.log import queries
from retrieval_prompts.experiments.pairs.made import Made, TooFew
from retrieval_prompts.experiments.pairs.teachers import load_teacher
from retrieval_prompts.experiments.workbench import Workbench
from retrieval_prompts.files import default_cache
from retrieval_prompts.prompts.writing_folder import load_writing
from retrieval_prompts.towers.language import LanguageModel
from retrieval_prompts.training.settings import TuneSettings
from retrieval_prompts.training.training_data import FEW_DEV

AUTOMATIC = ("queries", "titles")  # what was shown to help, first what taught more (eval/README.md)

WHOLE = {"queries": "a log is learned from", "generated": "queries are written"}


def prepare(bench: Workbench, settings: TuneSettings, split: str | None) -> Made | None:
    """The pairs that the settings ask for; None where people's judgements are trained on.

    Args:
        split: is evaluated, so its queries are no part of a log.

    Raises:
        UserError: where they cannot be made of these data.
    """
    if settings.labelled(bench.dataset.qrels):
        return None
    if settings.pairs != "auto":
        return _make(bench, settings, settings.pairs, split)
    reasons = []
    for how in AUTOMATIC:
        try:
            found = _make(bench, settings, how, split)
        except TooFew as error:
            reasons.append(str(error))
            continue
        why_not = f" ({'; '.join(reasons)})" if reasons and log_of(bench.dataset, split) else ""
        warnings.warn(
            f"{bench.dataset.name}: no judged training queries, so prompts learn from {found.what}{why_not}; judged "
            "queries teach more, and BM25 beside the frozen model needs none",
            DataWarning,
            stacklevel=3,
        )
        return found
    raise UserError(
        f"{bench.dataset.name}: nothing here that prompts were shown to learn from ({'; '.join(reasons)}): use the "
        "frozen model with BM25, by `index` and `search`, or ask for other pairs with --pairs"
    )


def _make(bench: Workbench, settings: TuneSettings, how: str, split: str | None) -> Made:
    if how in WHOLE and bench.dataset.corpus.groups is not None:
        raise TooFew(f"{WHOLE[how]} only where documents are not in chunks")
    if how == "titles":
        return titles(bench.dataset, settings.seed)
    if how == "crops":
        return crops(bench.dataset, settings.seed)
    if how == "queries":
        device = str(bench.tower.device)
        teacher = load_teacher(settings.teacher, device) if settings.teacher is not None else None
        judged = judged_of(bench.dataset, split)
        few = 0 < len(judged) < FEW_DEV  # sixteen would reject what helps: see eval/README.md
        known = {} if few else judged
        log = {query: text for query, text in log_of(bench.dataset, split).items() if query not in known}
        made = queries(bench, log, known, teacher)
        if few:
            said = f"{count(len(judged), 'judged query is', 'judged queries are')} too few to choose by"
            said += f" ({FEW_DEV} are needed), and what they ask for is not used"
            warnings.warn(f"{bench.dataset.name}: {said}", DataWarning, stacklevel=4)
        return made
    if settings.generator is None:
        raise UserError("--pairs generated needs --generator: the language model that writes the queries")
    model, prompt = LanguageModel(settings.generator, bench.tower.device), None
    if settings.generator_prompt is not None:
        prompt = load_writing(settings.generator_prompt)
    writer = Writer(model, examples(bench.dataset) if prompt is None else [], prompt)
    return generated(bench, writer, settings.seed, (bench.cache or default_cache()) / "queries")


def settled(settings: TuneSettings, made: Made | None) -> TuneSettings:
    """The settings for these pairs: "auto" stands for its choice, and for the prompts that learn from it."""
    if made is None or settings.pairs != "auto":
        return settings
    given = {name: value for name, value in asdict(settings).items() if (name, value) != ("encoder", "table")}
    return TuneSettings.of(**given | {"pairs": made.how})


def judged_of(dataset: Dataset, split: str | None) -> Qrels:
    """The judgements of training and dev queries, where there are some."""
    splits = [name for name in ("train", "dev") if name in dataset.qrels and name != split]
    return {query: judged for name in splits for query, judged in dataset.split(name)[1].items()}


def log_of(dataset: Dataset, split: str | None) -> dict[str, str]:
    """The queries that the evaluated split does not judge: id -> text."""
    scored = dataset.qrels.get(split, {}) if split is not None else {}
    return {query: text for query, text in dataset.queries.items() if query not in scored}
