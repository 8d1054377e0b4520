"""One data set of a benchmark and its systems: what each is made of, how it ranks, how it is tested.

Everything that systems share (vectors, index, prompts, training queries) is made once, when it is first asked for.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data import beir_sets
from retrieval_prompts.data.beir_folder import load
from retrieval_prompts.data.judgements import Run
from retrieval_prompts.errors import DataWarning, Diverged, UserError, shown
from retrieval_prompts.evaluation.metrics import HEADLINE, means, per_query
from retrieval_prompts.evaluation.significance import Comparison, adjust
from retrieval_prompts.evaluation.trec_runs import read_run, write_run
from retrieval_prompts.experiments.retrieval import tune
from retrieval_prompts.experiments.selection.advice import frozen_bm25_weight, tuned_bm25_weight
from retrieval_prompts.experiments.workbench import Workbench, paired_tests
from retrieval_prompts.files import check_listed
from retrieval_prompts.files.digests import SUMS
from retrieval_prompts.training.loop import Step
from retrieval_prompts.training.settings import TuneSettings
from retrieval_prompts.training.training_data import TrainingData
from retrieval_prompts.vectors.encode import PRECISIONS
from retrieval_prompts.vectors.index import Index

if TYPE_CHECKING:
    from retrieval_prompts.experiments.baselines.task import Retriever

CUTOFFS = (1, 3, 5, 10, 100, 1000)
METRICS = (*(f"{name}@{k}" for name in ("ndcg", "map", "recall", "precision") for k in CUTOFFS), "mrr@10")
TOP = 1000  # documents kept of each ranking
SYSTEMS = (
    "bm25",
    "frozen",
    "frozen+bm25",
    "tuned",
    "tuned+bm25",
    "linear",
    "lora",
    "nudge",
    "rrf",
    "rrf-tuned",
)
TRAINED = ("linear", "lora", "nudge")
FUSED = ("bm25", "frozen", "tuned")


@dataclass(frozen=True)
class BenchmarkSettings:
    """What a benchmark's figures depend on, apart from the model and the data.

    Args:
        systems: of SYSTEMS; "tuned" needs `prompts` or `tune`.
        prompts: a prompt folder; "{}" in it stands for the data set's name.
        tune: settings to tune prompts with on each data set that has training queries, or None.
        factory: FAISS index string; nprobe, ef_search: of a search in it.
        split: None: BEIR's.
        precision: of the products when documents are encoded: "float32" or "bfloat16".
        seed: of the baselines.
    """

    systems: tuple[str, ...] = ("frozen",)
    prompts: str | None = None
    tune: TuneSettings | None = None
    factory: str = "Flat"
    nprobe: int | None = None
    ef_search: int | None = None
    split: str | None = None
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        if odd := [name for name in self.systems if name not in SYSTEMS]:
            raise UserError(f"expected systems of {', '.join(SYSTEMS)}, got {odd[0]!r}")
        if self.precision not in PRECISIONS:
            raise UserError(f"--precision must be {' or '.join(PRECISIONS)}, got {self.precision!r}")
        if self.prompts is not None and self.tune is not None:
            raise UserError("pass --prompts or --tune, not both")
        if {"tuned", "tuned+bm25", "rrf-tuned"} & set(self.systems) and self.prompts is None and self.tune is None:
            raise UserError("the system tuned needs prompts: pass --prompts FOLDER, or --tune to train them")


@dataclass
class Means:
    """The means of each system over some of the queries: system -> metric -> mean."""

    queries: int
    systems: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Adjusted(Comparison):
    """A test of one of several systems: its p, corrected for their number (Holm)."""

    p_adjusted: float


@dataclass
class DatasetRecord:
    """What a benchmark found on one data set.

    Args:
        digest: of the data; see `BenchmarkDataset.digest`.
        prompts: what identifies those of the system "tuned".
        systems: system -> metric -> mean over queries.
        unseen_documents: the same over the queries none of whose documents training saw, where it saw some.
        tests: "<system>_vs_<baseline>", with "_unseen_documents" after it on those queries; of nDCG@10.
        learned: baseline -> its record, see `baselines.task.Retriever`.
        left_out: system -> why it was not run.
        weights: "frozen", "tuned" -> the weight of BM25 in the systems with it.
    """

    dataset: str
    split: str
    documents: int
    queries: int
    digest: str
    prompts: dict[str, Any] | None = None
    systems: dict[str, dict[str, float]] = field(default_factory=dict)
    unseen_documents: Means | None = None
    tests: dict[str, Comparison] = field(default_factory=dict)
    learned: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    documents_encoded: int = 0
    documents_reencoded: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Every field by its name; a test as `Comparison.as_dict` has it."""
        return {
            **vars(self),
            "unseen_documents": vars(self.unseen_documents) if self.unseen_documents is not None else None,
            "tests": {name: test.as_dict() for name, test in self.tests.items()},
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> DatasetRecord:
        """What `to_json` gave.

        Raises:
            TypeError: for anything else.
            AttributeError: for anything else.
            KeyError: for anything else.
        """
        tests = {
            name: (Adjusted if "p_adjusted" in test else Comparison)(**{**test, "ci95": tuple(test["ci95"])})
            for name, test in found["tests"].items()
        }
        unseen = found["unseen_documents"]
        return cls(**{**found, "tests": tests, "unseen_documents": Means(**unseen) if unseen is not None else None})


class BenchmarkDataset:
    """One data set with what its systems share, each made when it is first asked for.

    Args:
        bench: without documents yet; its `scored` is the split of this benchmark.
        out: the benchmark's folder; `overwrite`: prompts that were tuned there before do not count.

    `record` is what was found; run files in that folder count of the systems that are in it.
    """

    def __init__(
        self, name: str, bench: Workbench, settings: BenchmarkSettings, out: Path, overwrite: bool = False
    ) -> None:
        self.name, self.bench, self.settings, self.out, self.overwrite = name, bench, settings, out, overwrite
        self.split = bench.scored or beir_sets.eval_split(name, bench.dataset)
        bench.dataset.split(self.split)  # raises where there is no such split
        bench.scored = self.split
        self.qrels = bench.dataset.qrels[self.split]  # with queries that have no relevant document: BEIR counts them
        self.queries = {query: bench.dataset.queries[query] for query in self.qrels}
        self.done: dict[str, Run] = {}  # those that others are made of; a run of all systems would fill the memory
        self.values: dict[str, dict[str, float]] = {}  # system -> query -> nDCG@10
        self.record = DatasetRecord(name, self.split, len(bench.dataset.corpus), len(self.queries), self.digest)

    @classmethod
    def open(
        cls,
        name: str,
        folder: Path,
        biencoder: BiEncoder,
        settings: BenchmarkSettings,
        out: Path,
        *,
        cache: Path | None = None,
        overwrite: bool = False,
    ) -> BenchmarkDataset:
        """The BEIR folder as the settings want it."""
        bench = Workbench(biencoder.tower, load(folder), cache, settings.precision, settings.factory, settings.split)
        return cls(name, bench, settings, out, overwrite)

    @cached_property
    def digest(self) -> str:
        """Of the corpus, the queries and judgements of the split, and the judgements that are trained on."""
        splits = [self.training.train, self.training.dev] if self.training is not None else None
        parts = [self.bench.dataset.corpus.fingerprint, self.queries, self.qrels, splits]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()

    @cached_property
    def training(self) -> TrainingData | None:
        """What is trained on; the split that is scored is never a part of it."""
        return self.bench.training if self.split != "train" and "train" in self.bench.dataset.qrels else None

    def impossible(self, system: str) -> str | None:
        """Why a system cannot be run on this data set; None when it can."""
        tuning = self.settings.tune
        needs = system in TRAINED or (tuning is not None and "tuned" in system and tuning.pairs in ("auto", "labelled"))
        return "no training queries" if needs and self.training is None else None

    @cached_property
    def index(self) -> Index:
        self.bench.documents  # noqa: B018 - first, so that the time of the index is its own
        with self.bench.watch("index"):
            return self.bench.index

    @cached_property
    def tuned(self) -> BiEncoder:
        """The bi-encoder with its prompts, which are loaded, or tuned and kept in the benchmark's folder."""
        from retrieval_prompts.prompts.folder import load_prompts

        tower, settings = self.bench.tower, self.settings
        folder = tuned_folder(self.out, self.name, settings.prompts)
        if settings.tune is not None and (self.overwrite or not (folder / "prompt.json").is_file()):
            with tqdm(desc=shown(f"tune on {self.name}"), unit="step", delay=1, leave=False) as bar:

                def on_step(step: Step, total: int) -> None:
                    bar.total = total
                    bar.update(step.step - bar.n)

                options: dict[str, Any] = {"out": folder, "overwrite": self.overwrite, "on_step": on_step}
                tune(BiEncoder(tower), self.bench, settings.tune, split=None, **options)
        return BiEncoder.with_prompts(tower, load_prompts(folder), source=str(folder))

    @property
    def prompt_identity(self) -> dict[str, Any]:
        """What the tuned ranking depends on beside the model and the data."""
        from retrieval_prompts.prompts.feedback import fingerprint_of

        kind = self.tuned.kind
        prints = {side: fingerprint_of(kind, module) for side, module in self.tuned.prompts.items()}
        weight = {} if self.tuned.bm25_weight is None else {"bm25_weight": self.tuned.bm25_weight}
        return {"kind": kind, "strength": self.tuned.strength, **weight, **prints}

    def run(self, system: str) -> Run:
        """A system's ranking, from memory, its file, or its making."""
        if system not in self.done:
            kept = system in self.record.systems and self.intact(system)
            self.done[system] = read_run(run_file(self.out, self.name, system)) if kept else self.make(system)
        return self.done[system]

    def intact(self, system: str) -> bool:
        """Whether a system's run file is there, and not changed or cut since it was written (one warning)."""
        file = run_file(self.out, self.name, system)
        try:
            # A list that does not have it was cut itself; folders of older versions have none
            whole = check_listed(file) or not (file.is_file() and (file.parent / SUMS).is_file())
        except UserError:
            whole = False
        if not whole:
            message = f"{file} was changed or cut after it was written; it is made again"
            warnings.warn(message, DataWarning, stacklevel=3)
            return False
        return file.is_file()

    def make(self, system: str) -> Run:
        """The ranking of a system, at most TOP documents for every query."""
        if system == "bm25":
            return self.bench.bm25(self.queries, TOP)
        if system in ("rrf", "rrf-tuned"):
            from retrieval_prompts.evaluation.fusion import reciprocal_rank_fusion

            dense = self.run("tuned" if system == "rrf-tuned" else "frozen")
            return reciprocal_rank_fusion([self.run("bm25"), dense], TOP)
        search = {"nprobe": self.settings.nprobe, "ef_search": self.settings.ef_search}
        if system in TRAINED:
            fitted = self._baseline(system)
            with self.bench.watch(system):
                return fitted.run(self.queries, TOP, **search)
        name = system.removesuffix("+bm25")
        biencoder = self.tuned if name == "tuned" else self.bench.frozen
        index = self.bench.index_for(biencoder) if name == "tuned" else self.index
        hybrid = self.bench.hybrid_of(index) if system != name else None
        weight = self.weight(name) if hybrid is not None else 0.0
        with self.bench.watch(f"search {system}"):
            vectors = self.bench.query_vectors(biencoder, self.queries.values())
            if hybrid is None or weight == 0:
                return index.rank(list(self.queries), vectors, TOP, **search)
            return hybrid.rank(self.queries, vectors, TOP, [weight], **search)[0]

    def weight(self, name: str) -> float:
        """Of BM25 beside the frozen model, or beside the prompts."""
        weights = self.record.weights
        if name not in weights:
            tuned = name == "tuned"
            weights[name] = tuned_bm25_weight(self.tuned) if tuned else frozen_bm25_weight(self.bench, self.split)
        return weights[name]

    def _baseline(self, system: str) -> Retriever:
        from retrieval_prompts.experiments.baselines import linear, lora, nudge
        from retrieval_prompts.experiments.baselines.task import Task

        assert self.training is not None
        fits: dict[str, Callable[[Task], Retriever]] = {"linear": linear.fit, "lora": lora.fit, "nudge": nudge.fit}
        task = Task(self.bench.frozen, self.training, self.bench.documents, self.index, self.settings.seed)
        with self.bench.watch(system):
            fitted = fits[system](task)
        self.record.learned[system] = fitted.record
        return fitted

    def try_system(self, system: str) -> bool:
        """Run a system and keep what it found; or record why it is left out."""
        why = self.impossible(system)
        try:
            if why is None:
                self.keep(system)
        except Diverged as error:
            why = f"its training diverged: {error}"
        if why is not None:
            self.record.left_out[system] = why
        return why is None

    def keep(self, system: str) -> None:
        """Run a system, write its run file, and add its means to the record."""
        run, record = self.make(system), self.record
        if system in FUSED:
            self.done[system] = run
        if system == "tuned":
            record.prompts = self.prompt_identity
            if self.tuned.identity() != self.bench.frozen.identity():
                record.documents_reencoded = record.documents
        write_run(run_file(self.out, self.name, system), run, system)
        scores = per_query(self.qrels, run, METRICS)
        self.values[system] = scores[HEADLINE]
        record.systems[system] = means(scores)
        if "documents" in vars(self.bench):
            record.documents_encoded = max(record.documents_encoded, self.bench.documents.encoded)
        record.seconds |= self.bench.watch.seconds

    def test(self) -> None:
        """Add to the record: each system against the frozen model, p adjusted for their number (Holm); the soft prompts
        against BM25; and what was trained once more on the queries none of whose documents training saw."""
        record = self.record
        record.tests = {}
        if "frozen" not in record.systems:
            return
        for system in record.systems.keys() - self.values.keys():
            if self.intact(system):
                kept = read_run(run_file(self.out, self.name, system))
                self.values[system] = per_query(self.qrels, kept, [HEADLINE])[HEADLINE]
            else:
                self.keep(system)
        scores = {system: self.values[system] for system in record.systems}
        compared = [system for system in scores if system != "frozen"]
        trained = [system for system in scores if "tuned" in system or system in TRAINED]
        unseen = self.bench.unseen_queries(self.split)
        if not trained or self.training is None or len(unseen) == len(self.queries):
            unseen = []
        record.tests = paired_tests(scores, compared, trained, unseen)
        names = [f"{system}_vs_frozen" for system in compared]
        for name, p in zip(names, adjust([record.tests[name].p_value for name in names], "holm"), strict=True):
            record.tests[name] = Adjusted(**vars(record.tests[name]), p_adjusted=p)
        if unseen:
            part = {system: {query: values[query] for query in unseen} for system, values in scores.items()}
            record.unseen_documents = Means(
                len(unseen), {system: means({HEADLINE: values}) for system, values in part.items()}
            )


def run_file(out: Path, name: str, system: str) -> Path:
    """Where a benchmark in `out` keeps a system's ranking on a data set."""
    return out / f"{name.replace('/', '-')}.{system}.trec"


def tuned_folder(out: Path, name: str, prompts: str | None) -> Path:
    """The prompt folder for a data set: the one given, with its name for "{}", or the one that is tuned and kept."""
    return Path(prompts.replace("{}", name)) if prompts is not None else out / "prompts" / name.replace("/", "-")
