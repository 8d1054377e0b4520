"""How an experiment came about, in rows of a name and a text: when, by what, on what, how long it took, what it costs.

What is not known, as of results that were made before it was kept, has no row.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from retrieval_prompts.evaluation.words import count, system_name
from retrieval_prompts.experiments.records.provenance import Provenance

if TYPE_CHECKING:
    from retrieval_prompts.biencoder import BiEncoder
    from retrieval_prompts.experiments.benchmark import BenchmarkResult
    from retrieval_prompts.experiments.retrieval import RetrievalResult

Row = tuple[str, str]
COMMAND = "Command"  # the row that is shown as it is typed
SHORT = 12  # characters of a fingerprint


def origin(of: Provenance) -> list[Row]:
    """When, with which version, by which command."""
    rows = []
    if of.date:
        at = datetime.fromisoformat(of.date)
        rows.append(("Made", f"{at:%Y-%m-%d, %H:%M} (UTC{at:%z})".replace("+0000", "")))
    if of.version:
        rows.append(("Version", f"retrieval-prompts {of.version}"))
    if of.command:
        rows.append((COMMAND, of.command))
    return rows


def experiment(result: RetrievalResult, biencoder: BiEncoder) -> list[Row]:
    """Of `experiments.retrieval.tune` or `evaluate`; `biencoder` is the tuned one, or the frozen model."""
    record = biencoder.training_record if biencoder.prompts else {}
    return [
        *origin(result.provenance),
        *_prompts(biencoder, result.weights),
        *_training(record, result.seconds.get("tune")),
        ("Queries", ", ".join(_queries(result, record))),
        ("Documents", f"{result.documents:,}, {reencoded(result.documents_reencoded)}"),
        *_time(result),
        ("Model", _model(result.model, result.fingerprint)),
    ]


def benchmark(result: BenchmarkResult) -> list[Row]:
    """Of several data sets."""
    settings = result.settings
    found = result.datasets.values()
    rows = [*origin(result.provenance)]
    if any("tuned" in each.systems for each in found):
        tuned = settings.get("tune")
        how = f"{settings['prompts']}, made before" if tuned is None else _how(tuned)
        rows.append(("Prompts", how))
    asked, documents = sum(each.queries for each in found), sum(each.documents for each in found)
    rows += [
        ("Data sets", f"{len(found)}: {count(asked, 'query', 'queries')}, {documents:,} documents"),
        ("Search", f"FAISS index {settings['factory']}, documents in {settings['precision']}"),
        ("Model", _model(result.model, result.fingerprint)),
    ]
    device, machine = result.made_on.get("device"), result.made_on.get("machine", {}).get("system")
    return rows + [("Machine", f"{machine}, {device}")] * bool(device and machine)


def reencoded(documents: int) -> str:
    """For how many documents prompts need other vectors."""
    return f"{documents:,} of them encoded again for the prompts" if documents else "none encoded again for the prompts"


def _model(name: str, fingerprint: str) -> str:
    return name + (f", fingerprint {fingerprint[:SHORT]}" if fingerprint else "")


def _prompts(biencoder: BiEncoder, weights: dict[str, float]) -> Iterator[Row]:
    if biencoder.prompts:
        sides = " and ".join(sorted(biencoder.prompts))
        parts = [f"{biencoder.kind} prompts on the {sides} side", f"strength {biencoder.strength:g}"]
        if biencoder.feedback is not None:
            parts.insert(1, f"they read the first {biencoder.feedback.documents} documents of a first search")
        elif biencoder.made_for_each is not None:
            parts.insert(1, "a mixture, weighed for each query by its frozen vector")
        yield "Prompts", ", ".join(parts)
    if weights:
        said = ", ".join(f"{weight:g} beside {system_name(system)}" for system, weight in weights.items())
        yield "Weight of BM25", said


def _how(settings: dict[str, Any]) -> str:
    return f"{settings['kind']} prompts ({settings['encoder']}) on the {settings['side']} side, seed {settings['seed']}"


def _training(record: dict[str, Any], seconds: float | None) -> Iterator[Row]:
    """How prompts were trained, as far as their record says."""
    settings, stages = record.get("settings", {}), record.get("stages") or []
    parts = [f"{stage['step']:,} of {stage['of']:,} steps" for stage in stages]
    if seconds is not None:
        parts.append(f"{_duration(seconds)} with choosing by dev")
    names = {
        "encoder": "encoder",
        "length": "length",
        "batch_size": "batch",
        "learning_rate": "learning rate",
        "seed": "seed",
    }
    parts += [f"{said} {settings[name]}".strip() for name, said in names.items() if settings.get(name) is not None]
    if "pairs" in record:
        parts.append(f"learned from {record['pairs']}")
    if parts:
        yield "Training", ", ".join(parts)


def _queries(result: RetrievalResult, record: dict[str, Any]) -> Iterator[str]:
    held_out = " (held out of train)" if record.get("dev_held_out_of_train") else ""
    for name, said in (("train_queries", "train"), ("dev_queries", f"dev{held_out}")):
        if name in record:
            yield f"{record[name]:,} {said}"
    yield f"{result.queries:,} {result.split}"


def _time(result: RetrievalResult) -> Iterator[Row]:
    """Of a query, where it was measured."""
    if result.recommendation is None or not (found := result.recommendation.milliseconds):
        return
    parts = [f"{value:.1f} ms {system_name(system)}" for system, value in found.items()]
    yield "Time of a query", f"{', '.join(parts)} (median, one after another, encoding and search, here)"


def _duration(seconds: float) -> str:
    """
    >>> _duration(7.4), _duration(125.0), _duration(7260.0)
    ('7 s', '2 min 5 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"
