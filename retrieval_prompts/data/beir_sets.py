"""BEIR's data sets by name: which split is scored, where a folder lies, how to fetch one. Knows no model.

Names and conventions: Thakur et al. 2021, "BEIR", and the package `beir`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from retrieval_prompts.data.beir_folder import Dataset
from retrieval_prompts.errors import UserError, first_line

ADDRESS = "https://public.ukp.informatik.tu-darmstadt.de/thakur/BEIR/datasets/{}.zip"
PUBLIC = (
    "msmarco",
    "trec-covid",
    "nfcorpus",
    "nq",
    "hotpotqa",
    "fiqa",
    "arguana",
    "webis-touche2020",
    "cqadupstack",
    "quora",
    "dbpedia-entity",
    "scidocs",
    "fever",
    "climate-fever",
    "scifact",
)
LICENSED = ("bioasq", "signal1m", "trec-news", "robust04")  # BEIR says how to make these; nobody may hand them out
FORUMS = (
    "android",
    "english",
    "gaming",
    "gis",
    "mathematica",
    "physics",
    "programmers",
    "stats",
    "tex",
    "unix",
    "webmasters",
    "wordpress",
)
CQADUPSTACK = "cqadupstack"


def expand(names: Iterable[str], data_dir: Path | None = None) -> list[str]:
    """Data sets to run: "cqadupstack" is its twelve forums, "cqadupstack/android" and so on; "all" is what is public.
    A folder in `data_dir` that is called so and holds a corpus is itself.

    Raises:
        UserError: for a name that comes twice, and when there is none.
    """
    expanded: list[str] = []
    for name in names:
        if data_dir is not None and any((data_dir / name / f"corpus.jsonl{end}").is_file() for end in ("", ".gz")):
            expanded.append(name)
            continue
        for each in PUBLIC if name == "all" else (name,):
            expanded += [f"{CQADUPSTACK}/{forum}" for forum in FORUMS] if each == CQADUPSTACK else [each]
    if not expanded:
        raise UserError("expected at least one data set, got none")
    if twice := {name for name in expanded if expanded.count(name) > 1}:
        raise UserError(f"the data set {min(twice)} was named twice")
    return expanded


def eval_split(name: str, dataset: Dataset) -> str:
    """The split that BEIR scores: dev for MS MARCO, test for all others.

    Raises:
        UserError: where there is none.
    """
    split = "dev" if name == "msmarco" else "test"
    if split not in dataset.qrels:
        raise UserError(
            f"{dataset.folder} has no {split} split, only {', '.join(dataset.qrels) or 'none'}; name one with --split"
        )
    return split


def folder_of(name: str, data_dir: Path) -> Path:
    """The folder of a data set below `data_dir`, fetched by beir's own utility if it is not there.

    Any folder there may be named, not only BEIR's.

    Raises:
        UserError: for a name that leads out of `data_dir`, a set that is neither there nor public, and a download that
            fails; what arrived of it is deleted.
    """
    folder = data_dir / name
    if not folder.resolve().is_relative_to(data_dir.resolve()) or folder.resolve() == data_dir.resolve():
        raise UserError(f"expected the name of a folder in {data_dir}, got {name!r}")
    if folder.is_dir():
        return folder
    whole, _, forum = name.partition("/")
    if name in LICENSED:
        raise UserError(f"{folder} does not exist, and {name} may not be handed out: BEIR's wiki says how to make it")
    if whole not in PUBLIC or bool(forum) != (whole == CQADUPSTACK) or (forum and forum not in FORUMS):
        raise UserError(f"there is no folder {folder}, and no data set of BEIR is called {name!r}")
    _fetch(whole, data_dir)
    if not folder.is_dir():
        raise UserError(f"{ADDRESS.format(whole)} has no folder {name}; fetch the data by hand into {data_dir}")
    return folder


def _fetch(name: str, data_dir: Path) -> None:
    try:
        from beir.util import download_and_unzip
    except ImportError:
        raise UserError(
            f"{data_dir / name} does not exist; fetching it needs the package beir: pip install beir"
        ) from None
    data_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=data_dir, prefix=f".{name}.") as temporary:
        try:
            got = Path(download_and_unzip(ADDRESS.format(name), temporary))
        except Exception as error:  # requests, urllib3 and zipfile raise whatever they like
            raise UserError(
                f"{data_dir / name} does not exist, and {ADDRESS.format(name)} could not be fetched "
                f"({first_line(error)[:80]} ...); put the data set into {data_dir}"
            ) from None
        if (data_dir / name).exists():
            shutil.copytree(got, data_dir / name, dirs_exist_ok=True)
        else:
            os.replace(got, data_dir / name)


def for_average(datasets: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, dict[str, float]]]:
    """Data set -> system -> metric -> mean, with the forums of CQADupStack averaged into one, as BEIR reports them.

    Forums stand for the whole only when all twelve are there; otherwise each keeps its own name.
    """
    names = [f"{CQADUPSTACK}/{forum}" for forum in FORUMS]
    if not all(name in datasets for name in names):
        return {name: {system: dict(means) for system, means in found.items()} for name, found in datasets.items()}
    merged: dict[str, dict[str, dict[str, float]]] = {}
    for name, found in datasets.items():
        if name not in names:
            merged[name] = {system: dict(means) for system, means in found.items()}
        elif CQADUPSTACK not in merged:
            parts = [datasets[each] for each in names]
            shared = [system for system in parts[0] if all(system in part for part in parts)]
            merged[CQADUPSTACK] = {
                system: {
                    metric: sum(part[system][metric] for part in parts) / len(parts) for metric in parts[0][system]
                }
                for system in shared
            }
    return merged
