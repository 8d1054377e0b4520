"""Reports on text: what an experiment found, or what lies in a benchmark's folder. Knows no HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.prompts.folder import load_prompts
from retrieval_prompts.report.build import section_of, strength_curve
from retrieval_prompts.report.content import Curve, Report, Section
from retrieval_prompts.report.nearest_words import nearest_words, without_words

if TYPE_CHECKING:
    from retrieval_prompts.experiments.benchmark import BenchmarkResult
    from retrieval_prompts.experiments.retrieval import RetrievalResult
    from retrieval_prompts.experiments.selection.sweep import Sweep
    from retrieval_prompts.experiments.workbench import Workbench

UNTUNED: Mapping[str, str] = {"baseline": "bm25", "system": "frozen"}  # what is compared where nothing is better
# Shown in the tables of a page; results.json has all
SHOWN = ("ndcg@10", "mrr@10", "map@100", "recall@10", "recall@100", "recall@1000")


def experiment_report(
    result: RetrievalResult, biencoder: BiEncoder, bench: Workbench, swept: Sweep | None = None
) -> Report:
    """The page of `experiments.retrieval.tune` or `evaluate`.

    Args:
        biencoder: the tuned one; without prompts it is the frozen model.
        bench: on which it was evaluated.
        swept: the strengths that were compared.
    """
    assert result.split is not None
    advice = result.recommendation
    used = advice.system if advice is not None else "frozen"
    pair = {"baseline": "frozen", "system": "tuned" if used == "frozen" and biencoder.strength > 0 else used}
    section = section_of(
        bench.dataset,
        result.split,
        result.runs,
        systems=result.systems,
        tests={name: test.as_dict() for name, test in result.tests.items()},
        **(UNTUNED if pair["system"] == "frozen" else pair),
    )
    section = replace(section, advice=advice.sentence if advice is not None else "")
    if biencoder.prompts:
        section = _with_prompts(section, biencoder, bench, [_reencoded(result.documents_reencoded)])
    if swept is not None:
        lines = [Curve(line.name, [*zip(swept.strengths, line.gains, strict=True)]) for line in swept.lines]
        section = replace(section, trade=lines, facts=[*section.facts, swept.sentences()[0]])
    return Report(
        title=f"{result.dataset}: {'soft prompts' if biencoder.prompts else 'frozen model'}",
        sections=[section],
        facts=_model_facts(biencoder),
        notes=_notes(biencoder),
    )


def benchmark_report(
    result: BenchmarkResult, out: Path, data_dir: Path, frozen: BiEncoder, cache: Path | None = None
) -> Report:
    """The page of a benchmark: a section for each of its data sets, from the run files in `out`."""
    from retrieval_prompts.data.beir_folder import load
    from retrieval_prompts.data.beir_sets import folder_of
    from retrieval_prompts.evaluation.trec_runs import read_run
    from retrieval_prompts.evaluation.words import system_title
    from retrieval_prompts.experiments.benchmark_dataset import SYSTEMS, run_file, tuned_folder
    from retrieval_prompts.experiments.workbench import Workbench

    sections = []
    settings = result.settings
    notes: list[str] = []
    for name, found in result.datasets.items():
        bench = Workbench(frozen.tower, load(folder_of(name, data_dir)), cache, settings["precision"])
        systems = [system for system in SYSTEMS if system in found.systems]
        section = section_of(
            bench.dataset,
            found.split,
            {system: read_run(run_file(out, name, system)) for system in systems},
            systems={system: {metric: found.systems[system][metric] for metric in SHOWN} for system in systems},
            tests={test_name: test.as_dict() for test_name, test in found.tests.items()},
            **({} if "tuned" in systems else UNTUNED),
        )
        facts = [f"{system_title(system)} left out: {why}" for system, why in found.left_out.items()]
        if "tuned" in systems:
            facts.append(_reencoded(found.documents_reencoded))
            folder = tuned_folder(out, name, settings["prompts"])
            biencoder = BiEncoder.with_prompts(frozen.tower, load_prompts(folder), source=str(folder))
            section = _with_prompts(section, biencoder, bench, facts)
            notes += [note for note in _notes(biencoder) if note not in notes]
        else:
            section = replace(section, facts=[*section.facts, *facts])
        sections.append(section)
    searched = f"FAISS index {settings['factory']}, documents in {settings['precision']}"
    return Report(
        title="Benchmark" if len(sections) > 1 else sections[0].name,
        sections=sections,
        facts=[*_model_facts(frozen), searched],
        notes=notes,
        averages=result.average["systems"] if len(sections) > 1 else {},
    )


def _reencoded(count: int) -> str:
    return f"{count:,} documents encoded again for the prompts"


def _with_prompts(section: Section, biencoder: BiEncoder, bench: Workbench, facts: Sequence[str]) -> Section:
    """The section with more facts, and with curves and words of the prompts."""
    curve = biencoder.training_record.get("curve") or {}
    chosen_by = (biencoder.training_record.get("choice") or {}).get("curve")
    queries, qrels = bench.choosing(section.split)
    strength = Curve("dev", [(x, y) for x, y in chosen_by]) if chosen_by else None
    if strength is None and queries and "document" not in biencoder.prompts:
        strength = strength_curve(biencoder, bench.index, queries, qrels)
    return replace(
        section,
        facts=[*section.facts, *facts],
        loss=[Curve("loss", curve["loss"])] if curve.get("loss") else [],
        dev=[Curve("dev", curve["dev"])] if curve.get("dev") else [],
        strength=[strength] if strength is not None else [],
        words=nearest_words(biencoder),
    )


def _model_facts(biencoder: BiEncoder) -> list[str]:
    facts = [f"model {biencoder.tower.name}"]
    if biencoder.prompts:
        sides = " and ".join(sorted(biencoder.prompts))
        facts.append(f"{biencoder.kind} prompts on the {sides} side, strength {biencoder.strength:g}")
        if biencoder.feedback is not None:
            facts.append(f"they read the first {biencoder.feedback.documents} documents of a first search")
        elif biencoder.made_for_each is not None:
            facts.append("a mixture, weighed for each query by its frozen vector")
    return facts


def _notes(biencoder: BiEncoder) -> list[str]:
    return [note] if biencoder.prompts and (note := without_words(biencoder)) else []
