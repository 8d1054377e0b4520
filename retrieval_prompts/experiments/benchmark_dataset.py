"""One data set of a benchmark and its systems: what each is made of, how it ranks, how it is tested.

Everything that systems share (vectors, index, prompts, training queries) is made once, when it is first asked for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tqdm import tqdm

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data import beir_sets
from retrieval_prompts.data.beir_folder import Dataset, hold_out, load
from retrieval_prompts.data.judgements import Qrels, Run
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.bm25 import bm25_run
from retrieval_prompts.evaluation.metrics import drop_identical, means, per_query
from retrieval_prompts.evaluation.significance import adjust, compare
from retrieval_prompts.evaluation.trec_runs import read_run, write_run
from retrieval_prompts.experiments.retrieval import DEV_FRACTION, Stopwatch, dev_split, tune, unseen_queries
from retrieval_prompts.training.loop import Step
from retrieval_prompts.training.settings import TuneSettings
from retrieval_prompts.vectors.encode import PRECISIONS

CUTOFFS = (1, 3, 5, 10, 100, 1000)
METRICS = (*(f"{name}@{k}" for name in ("ndcg", "map", "recall", "precision") for k in CUTOFFS), "mrr@10")
HEADLINE = "ndcg@10"
TOP = 1000  # documents kept of each ranking
SYSTEMS = ("bm25", "frozen", "tuned", "linear", "lora", "nudge", "rrf", "rrf-tuned")
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
        if {"tuned", "rrf-tuned"} & set(self.systems) and self.prompts is None and self.tune is None:
            raise UserError("the system tuned needs prompts: pass --prompts FOLDER, or --tune to train them")


class Lab:
    """One data set with what its systems share, each made when it is first asked for.

    Args:
        out: the benchmark's folder; `overwrite`: prompts that were tuned there before do not count.

    `kept` are the systems whose run files in that folder count; none at first.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        biencoder: BiEncoder,
        settings: BenchmarkSettings,
        out: Path,
        cache: Path | None,
        overwrite: bool = False,
    ) -> None:
        self.name, self.settings, self.out, self.cache = name, settings, out, cache
        self.overwrite = overwrite
        self.kept: Container[str] = ()
        self.biencoder = BiEncoder(biencoder.tower)
        self.dataset: Dataset = load(folder)
        self.split = settings.split or beir_sets.eval_split(name, self.dataset)
        self.dataset.split(self.split)  # raises where there is no such split
        self.qrels = self.dataset.qrels[self.split]  # with queries that have no relevant document: BEIR counts them
        self.queries = {query: self.dataset.queries[query] for query in self.qrels}
        self.watch = Stopwatch()
        self.done: dict[str, Run] = {}  # those that others are made of; a run of all systems would fill the memory
        self.values: dict[str, dict[str, float]] = {}  # system -> query -> HEADLINE

    @cached_property
    def digest(self) -> str:
        """Of the corpus, the queries and judgements of the split, and the judgements that are trained on."""
        parts = [self.dataset.corpus.fingerprint, self.queries, self.qrels, self.training]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()

    def record(self) -> dict[str, Any]:
        return {
            "dataset": self.name,
            "split": self.split,
            "documents": len(self.dataset.corpus),
            "queries": len(self.queries),
            "digest": self.digest,
            "prompts": None,
            "systems": {},
            "unseen_documents": None,
            "tests": {},
            "learned": {},
            "left_out": {},
            "documents_encoded": 0,
            "documents_reencoded": 0,
            "seconds": {},
        }

    @property
    def prompts_given(self) -> bool:
        return self.settings.prompts is not None

    @cached_property
    def training(self) -> tuple[Qrels, Qrels] | None:
        """(train, dev) judgements; the split that is scored is never one of them."""
        if self.split == "train" or "train" not in self.dataset.qrels:
            return None
        if self.split == "dev":
            return hold_out(self.dataset.split("train")[1], DEV_FRACTION, seed=0)
        train, dev, _ = dev_split(self.dataset)
        return train, dev

    def impossible(self, system: str) -> str | None:
        """Why a system cannot be run on this data set; None when it can."""
        needs_training = system in TRAINED or (self.settings.tune is not None and "tuned" in system)
        return "no training queries" if needs_training and self.training is None else None

    @cached_property
    def documents(self) -> Any:
        with self.watch("encode documents"):
            return self.biencoder.encode_corpus(self.dataset.corpus, self.cache, precision=self.settings.precision)

    @cached_property
    def index(self) -> Any:
        documents = self.documents
        with self.watch("index"):
            return self._index(documents, self.biencoder)

    def _index(self, documents: Any, biencoder: BiEncoder) -> Any:
        from retrieval_prompts.vectors.index import Index

        ids = self.dataset.corpus.ids
        return Index.build(documents, None, ids, encoder=biencoder.identity(), factory=self.settings.factory)

    @cached_property
    def tuned(self) -> BiEncoder:
        """The bi-encoder with its prompts, which are loaded, or tuned and kept in the benchmark's folder."""
        tower, settings = self.biencoder.tower, self.settings
        folder = tuned_folder(self.out, self.name, settings.prompts)
        if settings.tune is not None and (self.overwrite or not (folder / "prompt.json").is_file()):
            made = BiEncoder(tower)
            others = {split: qrels for split, qrels in self.dataset.qrels.items() if split != self.split}
            data = replace(self.dataset, qrels=others)
            documents = self.documents  # so that the time of tuning is that of tuning
            with self.watch("tune"), tqdm(desc=f"tune on {self.name}", unit="step", delay=1, leave=False) as bar:

                def on_step(step: Step, total: int) -> None:
                    bar.total = total
                    bar.update(step.step - bar.n)

                options: dict[str, Any] = {"cache": self.cache, "documents": documents, "on_step": on_step}
                tune(made, data, settings.tune, split=None, out=folder, overwrite=self.overwrite, **options)
        from retrieval_prompts.prompts.folder import load_prompts

        return BiEncoder.with_prompts(tower, load_prompts(folder), source=str(folder))

    @property
    def prompt_identity(self) -> dict[str, Any]:
        """What the tuned ranking depends on beside the model and the data."""
        from retrieval_prompts.prompts.encoders import fingerprint

        kind = self.tuned.kind
        prints = {side: fingerprint(kind, module().detach()) for side, module in self.tuned.prompts.items()}
        return {"kind": kind, "strength": self.tuned.strength, **prints}

    def run(self, system: str) -> Run:
        """A system's ranking, from memory, its file, or its making."""
        if system not in self.done:
            file = run_file(self.out, self.name, system)
            there = system in self.kept and file.is_file()
            self.done[system] = read_run(file) if there else self.make(system, {})
        return self.done[system]

    def make(self, system: str, found: dict[str, Any]) -> Run:
        """The ranking of a system, at most TOP documents for every query."""
        if system == "bm25":
            corpus = self.dataset.corpus
            with self.watch("bm25"):
                texts = (document.content for document in corpus)
                return _top(drop_identical(bm25_run(texts, corpus.ids, self.queries, TOP + 1)))
        if system in ("rrf", "rrf-tuned"):
            from retrieval_prompts.evaluation.fusion import reciprocal_rank_fusion

            dense = self.run("tuned" if system == "rrf-tuned" else "frozen")
            return reciprocal_rank_fusion([self.run("bm25"), dense], TOP)
        if system in TRAINED:
            return self._baseline(system, found)
        biencoder, index = (self.tuned, self.index) if system == "tuned" else (self.biencoder, self.index)
        if biencoder.identity() != self.biencoder.identity():
            with self.watch("re-encode documents"):
                documents = biencoder.encode_corpus(self.dataset.corpus, self.cache, precision=self.settings.precision)
                found["documents_reencoded"] = len(self.dataset.corpus)
            index = self._index(documents, biencoder)
        if system == "tuned":
            found["prompts"] = self.prompt_identity
        with self.watch(f"search {system}"):
            vectors = biencoder.tower.comparable(biencoder.encode_query(list(self.queries.values())))
            return index.rank(
                list(self.queries),
                vectors,
                TOP,
                nprobe=self.settings.nprobe,
                ef_search=self.settings.ef_search,
            )

    def _baseline(self, system: str, found: dict[str, Any]) -> Run:
        from retrieval_prompts.experiments.baselines import linear, lora, nudge
        from retrieval_prompts.experiments.baselines.task import Retriever, Task

        assert self.training is not None
        fits: dict[str, Callable[[Task], Retriever]] = {"linear": linear.fit, "lora": lora.fit, "nudge": nudge.fit}
        task = Task(
            self.biencoder,
            self.dataset.corpus,
            self.dataset.queries,
            *self.training,
            self.documents,
            self.index,
            self.settings.seed,
        )
        with self.watch(system):
            fitted = fits[system](task)
            found.setdefault("learned", {})[system] = fitted.record
            return fitted.run(self.queries, TOP, nprobe=self.settings.nprobe, ef_search=self.settings.ef_search)

    def keep(self, system: str, found: dict[str, Any]) -> None:
        """Run a system, write its run file, and add its means to the data set's record."""
        run = self.make(system, found)
        if system in FUSED:
            self.done[system] = run
        write_run(run_file(self.out, self.name, system), run, system)
        scores = per_query(self.qrels, run, METRICS)
        self.values[system] = scores[HEADLINE]
        found["systems"][system] = means(scores)
        if "documents" in vars(self):
            found["documents_encoded"] = max(found["documents_encoded"], self.documents.encoded)
        found["seconds"] |= self.watch.seconds

    def tests(self, systems: Mapping[str, Any], found: dict[str, Any]) -> dict[str, Any]:
        """Each system against the frozen model, p adjusted for their number (Holm); the soft prompts against BM25; and
        what was trained once more on the queries none of whose documents training saw, whose means go to `found`."""
        if "frozen" not in systems:
            return {}
        for system in systems:
            if system not in self.values:
                kept = read_run(run_file(self.out, self.name, system))
                self.values[system] = per_query(self.qrels, kept, [HEADLINE])[HEADLINE]
        scores = {system: self.values[system] for system in systems}
        tests = {
            f"{system}_vs_frozen": compare(scores["frozen"], values, HEADLINE).as_dict()
            for system, values in scores.items()
            if system != "frozen"
        }
        for test, adjusted in zip(
            tests.values(), adjust([test["p_value"] for test in tests.values()], "holm"), strict=True
        ):
            test["p_adjusted"] = adjusted
        if {"tuned", "bm25"} <= scores.keys():
            tests["tuned_vs_bm25"] = compare(scores["bm25"], scores["tuned"], HEADLINE).as_dict()
        unseen = unseen_queries(self.dataset, self.split)
        trained = [system for system in scores if "tuned" in system or system in TRAINED]
        if trained and self.training is not None and 0 < len(unseen) < len(self.queries):
            part = {system: {query: values[query] for query in unseen} for system, values in scores.items()}
            found["unseen_documents"] = {"queries": len(unseen), "systems": means_of(part)}
            for system in trained:
                test = compare(part["frozen"], part[system], HEADLINE).as_dict()
                tests[f"{system}_vs_frozen_unseen_documents"] = test
        return tests


def run_file(out: Path, name: str, system: str) -> Path:
    """Where a benchmark in `out` keeps a system's ranking on a data set."""
    return out / f"{name.replace('/', '-')}.{system}.trec"


def tuned_folder(out: Path, name: str, prompts: str | None) -> Path:
    """The prompt folder for a data set: the one given, with its name for "{}", or the one that is tuned and kept."""
    return Path(prompts.replace("{}", name)) if prompts is not None else out / "prompts" / name.replace("/", "-")


def means_of(scores: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """System -> HEADLINE -> mean."""
    return {system: {HEADLINE: means({HEADLINE: values})[HEADLINE]} for system, values in scores.items()}


def _top(run: Run) -> Run:
    return {query: dict(list(hits.items())[:TOP]) for query, hits in run.items()}
