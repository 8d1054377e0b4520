"""The command line as a user meets it: machine output, bad input, outputs that exist, a kill in the middle."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import typer
from command_line import Command, Done

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.cli import app as cli
from retrieval_prompts.data.beir_folder import load
from retrieval_prompts.data.judgements import read_qrels
from retrieval_prompts.evaluation.metrics import METRICS, means, per_query
from retrieval_prompts.evaluation.trec_runs import read_run
from retrieval_prompts.files import sealed
from retrieval_prompts.training import retrieval as tuning
from retrieval_prompts.training.losses import info_nce

QUICK = ["--epochs", "2", "--batch-size", "8", "--length", "3", "--lr", "0.05", "--device", "cpu"]
ONCE = [*QUICK, "--folds", "1"]  # one training, chosen by dev
SYSTEMS = ["frozen", "tuned", "bm25", "frozen+bm25", "tuned+bm25"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("tiny") / "data", dev=True)


@pytest.fixture
def better_mean_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few queries make nothing sure: without this no prompt would be used."""
    monkeypatch.setattr("retrieval_prompts.experiments.selection.choice.ALPHA", 1.0)


def prompts(folder: Path, model: Path, side: str, kind: str) -> Path:
    BiEncoder.load(model, device="cpu").attach(side, kind=kind, length=3).save(folder)
    return folder


@pytest.fixture(scope="module")
def query_prompts(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    return prompts(tmp_path_factory.mktemp("prompts") / "query", model, "query", "input")


@pytest.fixture(scope="module")
def both_prompts(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    return prompts(tmp_path_factory.mktemp("prompts") / "both", model, "both", "prefix")


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("other"), seed=1)


@pytest.fixture
def index(command: Command, model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index") / "index"
    assert command("index", data, "--out", folder, "--model", model).code == 0
    return folder


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def refused(done: Done, message: str, status: int = 2) -> None:
    """One line on standard error."""
    assert done.code == status
    assert done.err.count("\n") == 1
    assert done.err.endswith("\n")
    assert done.err.startswith("error: ")
    assert re.search(message, done.err), f"{done.err!r} is not like {message!r}"


# --- tune and evaluate --------------------------------------------------------------------------------------------

RESULT = {
    "dataset": str,
    "split": str,
    "model": str,
    "systems": dict,
    "tests": dict,
    "recommendation": dict,
    "weights": dict,
    "documents_encoded": int,
    "documents_reencoded": int,
    "seconds": dict,
    "settings": dict,
    "documents": int,
    "queries": int,
    "fingerprint": str,
    "provenance": dict,
}
TEST = {
    "metric": str,
    "difference": float,
    "ci95": list,
    "p_value": float,
    "helped": int,
    "hurt": int,
    "unchanged": int,
}


def check_result(
    result: dict[str, Any], model: Path, systems: list[str], *, tuned: bool = False, queries: int = 10
) -> None:
    """`tuned`: something was trained, and dev chose."""
    assert {name: type(value) for name, value in result.items() if name != "choice"} == RESULT
    assert isinstance(result["choice"], dict if tuned else type(None))
    assert result["recommendation"]["system"] in systems
    assert list(result["weights"]) == (["frozen", "tuned"] if "bm25" in systems else [])
    assert (result["dataset"], result["split"], result["model"]) == ("data", "test", str(model))
    assert list(result["systems"]) == systems
    for scores in result["systems"].values():
        assert list(scores) == list(METRICS) == ["ndcg@10", "mrr@10", "map@100", "recall@10", "recall@100"]
        assert all(0 <= value <= 1 for value in scores.values())
    if "tuned" in systems:
        test = result["tests"]["tuned_vs_frozen"]
        assert {name: type(value) for name, value in test.items()} == TEST
        low, high = test["ci95"]
        assert low <= test["difference"] <= high
        assert test["helped"] + test["hurt"] + test["unchanged"] == queries
    else:
        assert result["tests"] == {}
    assert result["seconds"].keys() >= {"encode documents", "search"}


@pytest.mark.usefixtures("better_mean_wins")
def test_tune_then_evaluate(command: Command, model: Path, tmp_path: Path) -> None:
    data = tiny.write_data(tmp_path / "data", dev=True, accents=True)  # BM25 has no part in it
    out, json_file, run = tmp_path / "out" / "prompts", tmp_path / "result.json", tmp_path / "run"
    done = command("tune", data, "--out", out, "--model", model, "--json", json_file, *ONCE, "--kind", "prefix")
    assert done.code == 0
    tuned = json.loads(json_file.read_text())
    check_result(tuned, model, SYSTEMS, tuned=True)
    assert tuned["settings"]["kind"] == "prefix"
    assert tuned["settings"]["learning_rate"] == 0.05
    assert [path.name for path in out.parent.iterdir()] == ["prompts"]
    assert "data: 40 documents; queries: 30 train, 8 dev, 10 test\n" in done.out
    for words in ("frozen", "tuned", "bm25", "ndcg@10", f"{100 * tuned['systems']['tuned']['ndcg@10']:.1f}"):
        assert words in done.out
    assert f"prompt folder: {out} (" in done.out
    assert re.search(
        r"documents encoded(: none, the vectors of all 40 were there| once: 40 of 40, and none .*)\n", done.out
    )
    assert f'retrieval-prompts search INDEX "a question" --prompts {out}' in done.out
    assert "tuned" in tuned["recommendation"]["system"]
    assert tuned["recommendation"]["sentence"] in " ".join(done.out.split())
    assert "no prompt helped here" not in done.out
    assert re.search(r"step \d+: dev nDCG@10 0\.\d{4}", done.err)  # the progress
    assert tuned["systems"]["tuned"] != tuned["systems"]["frozen"]

    done = command(
        *("evaluate", data, "--model", model, "--prompts", out),
        *("--json", tmp_path / "evaluated.json", "--run", run, "--device", "cpu"),
    )
    assert (done.code, done.err) == (0, "")
    evaluated = json.loads((tmp_path / "evaluated.json").read_text())
    check_result(evaluated, model, SYSTEMS)
    assert evaluated["systems"] == tuned["systems"]
    assert evaluated["tests"] == tuned["tests"]
    assert evaluated["weights"] == tuned["weights"]
    assert evaluated["documents_encoded"] == 0
    check_runs(run, evaluated)
    assert re.match(r"q30 Q0 d\d+ 1 [0-9.]+ tuned\n", (run / "data.tuned.trec").read_text())


def check_runs(folder: Path, result: dict[str, Any]) -> None:
    """The folder holds every ranking whose scores were reported, the judgements, and the result."""
    rankings = {f"data.{system}.trec" for system in result["systems"]}
    assert {path.name for path in folder.iterdir()} == {*rankings, "SHA256SUMS", "data.qrels.tsv", "results.json"}
    kept = {name: value for name, value in result.items() if name != "also"}
    assert json.loads((folder / "results.json").read_text()) == sealed(kept)
    qrels = read_qrels(folder / "data.qrels.tsv")
    for system, scores in result["systems"].items():
        assert means(per_query(qrels, read_run(folder / f"data.{system}.trec"))) == scores


def test_without_prompts_the_frozen_model_is_evaluated(
    command: Command, model: Path, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    done = command("evaluate", data, "--model", model, "--json", "-", "--run", run, "--no-bm25")
    assert done.code == 0
    result = json.loads(done.out)  # nothing else stands on standard output
    check_result(result, model, ["frozen"])
    check_runs(run, result)
    assert "frozen" in done.err
    done = command("evaluate", data, "--model", model, "--split", "dev", "--json", "-")
    assert json.loads(done.out)["split"] == "dev"


def test_tune_says_what_it_holds_out_and_what_is_not_there(command: Command, model: Path, tmp_path: Path) -> None:
    data = tiny.write_data(tmp_path / "data")
    test, train = data / "qrels" / "test.tsv", data / "qrels" / "train.tsv"
    test.unlink()
    done = command("tune", data, "--out", tmp_path / "out", "--model", model, "--json", "-", *ONCE)
    assert done.code == 0
    held_out = r"queries: 2[12] train, [23] dev \(held out of train\), 6 test \(held out of train\)\n"
    assert re.search(held_out, done.err)
    result = json.loads(done.out)
    check_result(result, model, SYSTEMS, tuned=True, queries=6)
    assert result["settings"]["dev_held_out_of_train"] is True
    again = command("evaluate", data, "--model", model, "--prompts", tmp_path / "out", "--json", "-")
    assert "6 test queries (held out of train" in again.err
    assert json.loads(again.out)["systems"] == result["systems"]

    header, *lines = train.read_text().splitlines()
    few = [line for line in lines if int(line.split("\t")[0][1:]) < 24]
    tiny.write_lines(train, [header, *few])
    done = command("tune", data, "--out", tmp_path / "few", "--model", model, "--json", "-", *ONCE)
    assert done.code == 0
    assert re.search(r"queries: 2[12] train, [23] dev \(held out of train\), no test split\n", done.err)
    result = json.loads(done.out)
    assert (result["split"], result["systems"], result["tests"]) == (None, {}, {})
    assert result["recommendation"]["basis"] == "held out of train"
    refused(command("evaluate", data, "--model", model), "has no split 'test'; it has train")


def test_tune_can_be_evaluated_on_dev(command: Command, model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = command("tune", data, "--out", out, "--model", model, "--split", "dev", "--json", "-", *ONCE)
    assert done.code == 0
    result = json.loads(done.out)
    assert result["split"] == "dev"
    dev = result["settings"]["dev"]
    assert dev["metric"] == "ndcg@10"
    assert dev["frozen"] == result["systems"]["frozen"]["ndcg@10"]
    line = next(line for line in done.err.splitlines() if line.startswith("nDCG@10 on dev (8 queries, dev split"))
    assert f"frozen {100 * dev['frozen']:.1f}, " in line
    assert f"tuned {100 * result['choice']['systems']['tuned']['all']:.1f}" in line
    assert result["recommendation"]["basis"].startswith("dev")


def test_tune_says_that_no_prompt_was_better(
    command: Command, model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval_prompts.training.doubts.SOLVED", 2.0)  # else nothing would be trained
    # By dev, each query's relevant document is what the frozen model finds first
    mine = tmp_path / "data"
    shutil.copytree(data, mine)
    dataset, biencoder = load(mine), BiEncoder.load(model, device="cpu")
    queries = [f"q{number}" for number in tiny.DEV]
    documents = biencoder.encode_document(dataset.corpus.contents(0, 40))
    best = (biencoder.encode_query([dataset.queries[query] for query in queries]) @ documents.T).argmax(axis=1)
    lines = [f"{query}\td{position}\t1" for query, position in zip(queries, best, strict=True)]
    tiny.write_lines(mine / "qrels" / "dev.tsv", ["query-id\tcorpus-id\tscore", *lines])
    done = command("tune", mine, "--out", tmp_path / "out", "--model", model, "--json", tmp_path / "result", *ONCE)
    assert done.code == 0
    # 8 steps with a dev score each: a third of them is nearest to 3
    assert "no dev score beat the frozen model in the first third of training: ended at step 3 of 8\n" in done.out
    assert re.findall(r"^(.*): dev nDCG@10 .*$", done.err, re.M) == ["frozen", "step 1", "step 2", "step 3"]
    assert "*" not in done.err
    assert "no prompt helped here" in done.out
    assert "--prompts" not in done.out.split("next:")[1]
    result = json.loads((tmp_path / "result").read_text())
    assert (result["settings"]["given_up"], result["settings"]["stages"]) == (True, [{"step": 3, "of": 8}])
    assert result["settings"]["strength"] == 0
    assert result["systems"]["tuned"] == result["systems"]["frozen"]
    assert result["tests"]["tuned_vs_frozen"]["difference"] == 0


def test_judgements_that_teach_nothing_are_said_and_nothing_is_trained(
    command: Command, model: Path, data: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "data"
    shutil.copytree(data, mine)
    for split, numbers in (("train", tiny.TRAIN), ("dev", tiny.DEV)):
        lines = [f"q{number}\td0\t1" for number in numbers]
        tiny.write_lines(mine / "qrels" / f"{split}.tsv", ["query-id\tcorpus-id\tscore", *lines])
    out, result = tmp_path / "out", tmp_path / "result"
    done = command("tune", mine, "--out", out, "--model", model, "--json", result, *QUICK)
    assert done.code == 0
    assert re.search(r"^warning: data: the 38 judged queries ask for only 1 document of 40", done.err, re.M)
    assert "dev nDCG@10" not in done.err  # not a step
    assert "no prompt helped here" in done.out
    assert "--prompts" not in done.out.split("next:")[1]
    found = json.loads(result.read_text())
    assert found["settings"]["strength"] == 0
    assert "tuned" not in found["recommendation"]["system"]
    assert found["systems"]["tuned"] == found["systems"]["frozen"]


def test_what_is_lost_elsewhere(command: Command, model: Path, data: Path, query_prompts: Path, tmp_path: Path) -> None:
    others = [tiny.write_data(tmp_path / name, seed=seed) for seed, name in enumerate(("left", "right"), 1)]
    also = [part for other in others for part in ("--also", other)]
    out = tmp_path / "out"
    done = command("tune", data, "--out", out, "--model", model, *also, "--json", tmp_path / "tuned.json", *ONCE)
    assert done.code == 0
    tuned = json.loads((tmp_path / "tuned.json").read_text())["also"]
    again = command("evaluate", data, "--model", model, "--prompts", out, *also, "--json", tmp_path / "evaluated.json")
    assert again.code == 0
    assert json.loads((tmp_path / "evaluated.json").read_text())["also"] == tuned
    assert [(each["dataset"], each["split"]) for each in tuned] == [("left", "test"), ("right", "test")]
    for other, each in zip(others, tuned, strict=True):
        alone = command("evaluate", other, "--model", model, "--prompts", out, "--no-bm25", "--json", "-")
        assert json.loads(alone.out)["systems"] == each["systems"]
        assert json.loads(alone.out)["tests"]["tuned_vs_frozen"] == each["test"]
        assert done.out.count(f"On {other.name} (test), tuned ") == again.out.count(f"On {other.name} (test), ") == 1


def test_bad_options_of_what_is_lost_elsewhere(command: Command, model: Path, data: Path, tmp_path: Path) -> None:
    message = r"^error: --also shows what prompts lose elsewhere; pass --prompts as well$"
    refused(command("evaluate", data, "--model", model, "--also", data), message)
    for other in (tmp_path / "nowhere", tmp_path):
        done = command("tune", data, "--out", tmp_path / "out", "--model", model, "--also", other, *ONCE)
        refused(done, "^error: ")
        assert not (tmp_path / "out").exists()


def test_unknown_judgements_are_a_warning(command: Command, model: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    path = tmp_path / "data" / "qrels" / "test.tsv"
    path.write_text(path.read_text() + "q30\tnowhere\t1\nnobody\td1\t1\n")
    done = command("evaluate", tmp_path / "data", "--model", model, "--no-bm25", "--device", "cpu")
    assert done.code == 0
    message = "dropped judgements: 1 with an unknown query (nobody), 1 with an unknown document (nowhere)"
    assert done.err == f"warning: {path}: {message}\n"


@pytest.mark.usefixtures("better_mean_wins")
@pytest.mark.parametrize("side", ["document", "both"])
def test_a_document_prompt_is_tuned_and_reported(
    command: Command, model: Path, data: Path, tmp_path: Path, side: str
) -> None:
    json_file = tmp_path / "result.json"
    options = ["--model", model, "--side", side, "--negatives", "in-batch", "--symmetric", "--init", "gaussian"]
    quick = [each for each in QUICK if side == "both" or each not in ("--lr", "0.05")]  # its own is --document-lr
    done = command("tune", data, "--out", tmp_path / "out", "--json", json_file, *options, *quick)
    assert done.code == 0
    result = json.loads(json_file.read_text())
    check_result(result, model, SYSTEMS, tuned=True)
    kept = "document" in result["settings"]["sides"]
    assert kept or (side == "both" and "the document prompt was dropped: on dev it changes nDCG@10 by" in done.out)
    used = kept and result["settings"]["strength"] == 1
    assert result["documents_reencoded"] == (40 if used else 0)
    # The index needs a document prompt too
    recommended = kept and "tuned" in result["recommendation"]["system"]
    assert (f"--prompts {tmp_path / 'out'}\n  retrieval-prompts search INDEX" in done.out) == recommended


# --- index and search ---------------------------------------------------------------------------------------------


def test_search_finds_an_obvious_document(command: Command, index: Path, data: Path) -> None:
    document = json.loads((data / "corpus.jsonl").read_text().splitlines()[7])
    question = f"{document['title']} {document['text']}"
    dense = ["--bm25-weight", "0"]
    done = command("search", index, question, "--json", "-", "-k", "3", "--device", "cpu", *dense)
    assert (done.code, done.err) == (0, "")
    hits = json.loads(done.out)
    assert [list(hit) for hit in hits] == [["id", "score", "title", "text"]] * 3
    assert hits[0] == {"id": "d7", "score": hits[0]["score"], "title": document["title"], "text": document["text"]}
    assert hits[0]["score"] == pytest.approx(1)
    assert hits[0]["score"] > hits[1]["score"] > hits[2]["score"]
    assert all(type(hit["score"]) is float for hit in hits)

    done = command("search", index, question, "-k", "3", *dense)
    lines = done.out.splitlines()
    assert len(lines) == 7
    assert lines[0] == "dense"
    assert lines[1].split() == ["1.", "1.0000", *document["title"].split()]
    assert lines[2].strip() == f"[d7] {document['text']}"


def test_search_writes_its_hits_to_a_file_as_other_commands_do(command: Command, index: Path, tmp_path: Path) -> None:
    file = tmp_path / "hits.json"
    done = command("search", index, "copper", "--json", file)
    assert (done.code, done.err) == (0, "") and len(done.out.splitlines()) == 21
    assert json.loads(file.read_text()) == json.loads(command("search", index, "copper", "--json", "-").out)
    again = command("search", index, "copper", "--json", file)
    assert again.code == 2 and f"{file} exists already" in again.err
    assert command("search", index, "copper", "--json", file, "--overwrite").code == 0


def test_k_beyond_the_corpus_gives_every_document_once(command: Command, index: Path) -> None:
    done = command("search", index, "copper", "--json", "-", "-k", "1000")
    hits = json.loads(done.out)
    assert sorted(hit["id"] for hit in hits) == sorted(f"d{number}" for number in range(40))
    scores = [hit["score"] for hit in hits]
    assert scores == sorted(scores, reverse=True)


def test_query_prompts_search_an_index_of_frozen_documents(
    command: Command, index: Path, query_prompts: Path, model: Path
) -> None:
    def hits(*options: object) -> Any:
        dense = ["--json", "-", "--bm25-weight", "0"]
        done = command("search", index, "what does the evidence show about copper", *dense, *options)
        assert done.code == 0
        return [(hit["id"], hit["score"]) for hit in json.loads(done.out)]

    biencoder = BiEncoder.load(model, query_prompts, device="cpu")
    documents = BiEncoder(biencoder.tower).encode_document(load_contents(index))
    scores = biencoder.encode_query("what does the evidence show about copper") @ documents.T
    assert [id for id, _ in hits("--prompts", query_prompts)] == [f"d{n}" for n in np.argsort(-scores)[:10]]
    assert hits("--prompts", query_prompts) != hits()
    assert hits("--prompts", query_prompts, "--strength", "0") == hits()
    assert hits("--prompts", query_prompts, "--strength", "0.5") not in (hits(), hits("--prompts", query_prompts))


def load_contents(index: Path) -> list[str]:
    rows = [json.loads(line) for line in (index / "documents.jsonl").read_text().splitlines()]
    return [f"{row['title']} {row['text']}" for row in rows]


def test_an_index_and_a_search_must_share_the_document_prompt(
    command: Command, index: Path, model: Path, data: Path, both_prompts: Path, tmp_path: Path
) -> None:
    before = "this index was made with no document prompt, got the document prompt [0-9a-f]{12}; index the documents"
    refused(command("search", index, "copper", "--prompts", both_prompts), before)
    tuned = tmp_path / "index"
    assert command("index", data, "--out", tuned, "--model", model, "--prompts", both_prompts).code == 0
    assert len(json.loads(command("search", tuned, "copper", "--prompts", both_prompts, "--json", "-").out)) == 10
    message = "this index was made with the document prompt [0-9a-f]{12}, got no document prompt; index the documents"
    refused(command("search", tuned, "copper"), message)
    refused(command("search", tuned, "copper", "--prompts", both_prompts, "--strength", "0"), message)


def test_prompts_of_another_model_are_refused(
    command: Command, index: Path, other_model: Path, model: Path, data: Path, query_prompts: Path, tmp_path: Path
) -> None:
    alien = prompts(tmp_path / "alien", other_model, "query", "input")
    belong = rf"{alien} belong to {other_model} \(fingerprint [0-9a-f]{{12}}, dimension 32\), not to {model} \("
    refused(command("search", index, "copper", "--prompts", alien), belong)
    refused(command("evaluate", data, "--model", model, "--prompts", alien), belong)
    refused(command("index", data, "--model", model, "--prompts", alien, "--out", tmp_path / "index"), belong)
    refused(
        command("search", index, "copper", "--model", other_model, "--prompts", alien),
        "this index was made by another document encoder: .*; index the documents again, or use the model that made",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["alien"]


def test_index_counts_what_it_encodes(command: Command, model: Path, data: Path, tmp_path: Path) -> None:
    for expected in (40, 0):
        done = command(
            *("index", data, "--out", tmp_path / f"index{expected}", "--model", model),
            *("--cache", tmp_path / "cache", "--factory", "HNSW16"),
        )
        assert done.out.startswith(f"{tmp_path / f'index{expected}'}: 40 documents, HNSW16, BM25 (")
        assert f"; {expected} encoded now," in done.out
    assert command("search", tmp_path / "index0", "copper", "--ef-search", "50").code == 0


# --- export -------------------------------------------------------------------------------------------------------


def test_export_writes_a_stock_checkpoint(command: Command, model: Path, query_prompts: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    done = command("export", query_prompts, "--out", tmp_path / "out", "--device", "cpu")
    assert done.code == 0
    assert f'SentenceTransformer("{tmp_path / "out"}").encode_query("a question")' in done.out
    theirs = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    ours = BiEncoder.load(model, query_prompts, device="cpu")
    texts = ["what does the evidence show about copper", "falcon"]
    assert np.abs(theirs.encode_query(texts) - ours.encode_query(texts)).max() < 1e-6
    assert np.abs(theirs.encode_document(texts) - ours.encode_document(texts)).max() < 1e-6


def test_prefixes_cannot_be_exported_and_the_message_says_why(
    command: Command, both_prompts: Path, query_prompts: Path, tmp_path: Path
) -> None:
    message = r"a prefix is keys and values inside every layer, and no stock .* BiEncoder.as_sentence_transformer\(\)$"
    refused(command("export", both_prompts, "--out", tmp_path / "out"), message)
    refused(command("export", query_prompts, "--out", tmp_path / "out", "--strength", "0.5"), "pass --strength 1")
    assert list(tmp_path.iterdir()) == []


def renamed(data: Path, folder: Path) -> Path:
    """The data set with ids of any characters, quoted in its judgements as `beir` would."""
    shutil.copytree(data, folder)
    queries, corpus = folder / "queries.jsonl", folder / "corpus.jsonl"
    for path, odd in ((queries, "{} 100%\t"), (corpus, '"report\u3000%20{}".pdf')):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps({**row, "_id": odd.format(row["_id"])}) + "\n" for row in rows))
    for path in (folder / "qrels").iterdir():
        rows = [line.split("\t") for line in path.read_text().splitlines()[1:]]
        with path.open("w", newline="", encoding="utf-8") as file:
            lines = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_ALL)
            lines.writerow(["query-id", "corpus-id", "score"])
            lines.writerows((f"{q} 100%\t", f'"report\u3000%20{d}".pdf', grade) for q, d, grade in rows)
    return folder


def test_ids_of_any_characters(command: Command, model: Path, data: Path, tmp_path: Path) -> None:
    odd, run, plain = renamed(data, tmp_path / "data"), tmp_path / "run", tmp_path / "plain"
    for folder, out in ((odd, run), (data, plain)):
        assert command("evaluate", folder, "--model", model, "--run", out).code == 0
    found, expected = (json.loads((out / "results.json").read_text())["systems"] for out in (run, plain))
    assert found == expected
    ranked, plainly = (read_run(out / "data.bm25.trec") for out in (run, plain))
    assert ranked == {
        f"{query} 100%\t": {f'"report\u3000%20{id}".pdf': score for id, score in hits.items()}
        for query, hits in plainly.items()
    }
    pair = [out / f"data.{system}.trec" for out in (run,) for system in ("frozen", "bm25")]
    compared = command("compare", *pair, "--qrels", run / "data.qrels.tsv", "--json", "-")
    again = command("compare", plain / "data.frozen.trec", plain / "data.bm25.trec", "--qrels", data, "--json", "-")
    assert json.loads(compared.out)["averages"] == json.loads(again.out)["averages"]


# --- bad input ----------------------------------------------------------------------------------------------------


def append(name: str, line: str) -> Callable[[Path], None]:
    def change(data: Path) -> None:
        path = data / name
        path.write_text(path.read_text() + line + "\n")

    return change


def put(name: str, content: bytes) -> Callable[[Path], None]:
    def change(data: Path) -> None:
        (data / name).write_bytes(content)

    return change


def one_train_query(data: Path) -> None:
    (data / "qrels" / "train.tsv").write_bytes(HEADER + b"q0\td0\t1\n")
    (data / "qrels" / "dev.tsv").unlink()


HEADER = b"query-id\tcorpus-id\tscore\n"
CORPUS_FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "malformed JSON": (
        append("corpus.jsonl", '{"_id": "x", "text": '),
        r"corpus.jsonl:41: expected a JSON object, got ma",
    ),
    "no object": (append("corpus.jsonl", "[1]"), r"corpus.jsonl:41: expected a JSON object, got list"),
    "text of a wrong kind": (
        append("corpus.jsonl", '{"_id": "x", "text": []}'),
        r'corpus.jsonl:41: "text" must be a string, got list',
    ),
    "missing id": (
        append("corpus.jsonl", '{"text": "x"}'),
        r'corpus.jsonl:41: expected the field "_id", got only text',
    ),
    "duplicate id": (
        append("corpus.jsonl", '{"_id": "d3", "text": "x"}'),
        r"corpus.jsonl:41: document id 'd3' was used on line 4 already",
    ),
    "not UTF-8": (
        put("corpus.jsonl", b'\n{"_id": "x", "text": "caf\xe9"}\n'),
        r"corpus.jsonl:2: expected UTF-8, got byte",
    ),
    "empty corpus": (put("corpus.jsonl", b""), r"corpus.jsonl holds no documents"),
    "no corpus": (lambda data: (data / "corpus.jsonl").unlink(), r"has neither corpus.jsonl nor corpus.jsonl.gz"),
    "no folder": (lambda data: shutil.rmtree(data), r"does not exist; expected a BEIR folder"),
}
DATA_FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    **CORPUS_FAULTS,
    "malformed query": (append("queries.jsonl", "{"), r"queries.jsonl:49: expected a JSON object, got malformed JSON"),
    "query without text": (append("queries.jsonl", '{"_id": "x"}'), r'queries.jsonl:49: expected the field "text"'),
    "duplicate query": (
        append("queries.jsonl", '{"_id": "q0", "text": "x"}'),
        r"queries.jsonl:49: query id 'q0' was used on line 1 already",
    ),
    "unknown header": (put("qrels/test.tsv", b"a\tb\tc\n"), r"test.tsv:1: expected a grade"),
    "unknown ids": (
        put("qrels/test.tsv", HEADER + b"30\t30\t1\n"),
        r"test.tsv: dropped judgements: 1 with an unknown query \(30\); none is left. Expected ids of this folder",
    ),
    "wrong grade": (put("qrels/test.tsv", HEADER + b"q30\td30\tyes\n"), r"test.tsv:2: expected a grade"),
    "two columns": (put("qrels/test.tsv", HEADER + b"q30\td30\n"), r"test.tsv:2: expected 3 columns"),
    "empty test": (put("qrels/test.tsv", HEADER), r"split 'test' of \S+ has no query with a relevant document"),
    "no qrels": (lambda data: shutil.rmtree(data / "qrels"), r"has no folder qrels; expected qrels/<split>.tsv"),
}
NOTHING = r"nothing here that prompts were shown to learn from \(a log of only \d+ queries, and 100 are needed; only"
TUNE_FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty train": (put("qrels/train.tsv", HEADER), r"split 'train' of \S+ has no query with a relevant document"),
    "nothing relevant": (put("qrels/train.tsv", HEADER + b"q0\td0\t0\n"), r"split 'train' of \S+ has no query with"),
    "no train": (lambda data: (data / "qrels" / "train.tsv").unlink(), NOTHING),
    "no judgements": (lambda data: shutil.rmtree(data / "qrels"), NOTHING),
    "one train query": (one_train_query, r"holding out queries needs at least 2 of them, got 1"),
}


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        *(("index", fault) for fault in CORPUS_FAULTS),
        *(("evaluate", fault) for fault in DATA_FAULTS),
        *(("tune", fault) for fault in {**DATA_FAULTS, **TUNE_FAULTS} if fault != "no qrels"),
    ],
)
def test_bad_data(command: Command, model: Path, data: Path, tmp_path: Path, name: str, fault: str) -> None:
    change, message = {**DATA_FAULTS, **TUNE_FAULTS}[fault]
    shutil.copytree(data, tmp_path / "data")
    change(tmp_path / "data")
    before = tree(tmp_path)
    outputs = {
        "index": ["--out", tmp_path / "out"],
        "evaluate": ["--json", tmp_path / "result.json", "--run", tmp_path / "run"],
        "tune": ["--out", tmp_path / "out", "--json", tmp_path / "result.json"],
    }
    refused(command(name, tmp_path / "data", "--model", model, *outputs[name]), message)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--side", "left"], "--side must be query, document or both, got 'left'"),
        (["--kind", "suffix"], "--kind must be input, prefix or auto, got 'suffix'"),
        (["--encoder", "gru"], "--encoder must be table, mlp, lstm, feedback or auto, got 'gru'"),
        (["--negatives", "hard"], "--negatives must be corpus, in-batch or mined, got 'hard'"),
        (["--init", "zeros"], "--init must be text:WORDS, vocab or gaussian, got 'zeros'"),
        (["--init", "text:"], "--init 'text:' has no words"),
        (["--common"], "--common is read with --side both, not with --side query"),
        (["--length", "0"], "--length must be 1 or more, got 0"),
        (["--length", "57"], "a query prompt of 57 leaves 7 of 40 tokens to the text; use a smaller --length"),
        (["--epochs", "0"], "--epochs must be 1 or more, got 0"),
        (["--lr", "0"], r"--lr must be above 0 and at most 1e\+30, got 0.0"),
        (["--lr", "nan"], r"--lr must be above 0 and at most 1e\+30, got nan"),
        (["--batch-size", "-1"], "--batch-size must be 1 or more, got -1"),
        (["--temperature", "0"], "temperature must be above 0, got 0.0"),
        (["--patience", "0"], "--patience must be 1 or more, got 0"),
        (["--seed", "-1"], "seed must be from 0 to"),
        (["--split", "tset"], "has no split 'tset'; it has dev, test, train"),
        (["--model", "no/model/here"], "there is no model folder no/model/here; give a folder, a name on the hub"),
    ],
    ids=str,
)
def test_bad_options_of_tune(
    command: Command, model: Path, data: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    outputs = ["--out", tmp_path / "out", "--json", tmp_path / "result.json"]
    refused(command("tune", data, "--model", model, *outputs, *options), message)
    assert list(tmp_path.iterdir()) == []


def test_a_strength_without_prompts(command: Command, model: Path, data: Path) -> None:
    refused(command("evaluate", data, "--model", model, "--strength", "0.5"), "pass --prompts as well")


def test_a_loss_that_is_not_finite(command: Command, model: Path, data: Path, tmp_path: Path) -> None:
    done = command("tune", data, "--model", model, "--out", tmp_path / "out", "--temperature", "1e-30", *ONCE)
    assert done.code == 2
    last = done.err.splitlines()[-1]  # after the progress
    assert last.startswith("error: the loss is not finite (loss ")
    assert last.endswith(f"; the last good prompt: {tmp_path / 'out.last-good'}")
    assert "Traceback" not in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["out.last-good"]


@pytest.mark.parametrize("name", ["tune", "evaluate", "index"])
def test_a_model_that_is_none(command: Command, data: Path, tmp_path: Path, name: str) -> None:
    out = [] if name == "evaluate" else ["--out", tmp_path / "out"]
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    before = tree(tmp_path)
    for model, message in (
        ("empty", "is no model folder: expected config.json or modules.json in it; give the folder of a "),
        ("file", "is a file; expected a model folder or a model's name"),
        ("missing", "there is no model folder"),
        ("broken", "could not be loaded: expected a sentence-transformers or Hugging Face encoder"),
    ):
        refused(command(name, data, "--model", tmp_path / model, *out), message)
    assert tree(tmp_path) == before


def test_a_name_that_no_hub_gives_is_one_line_of_a_whole_process(data: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "retrieval_prompts.cli.app", "evaluate", str(data), "--model", "no-such-model"],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
    )
    refused(Done(done.returncode, done.stdout, done.stderr), "model no-such-model could not be loaded: expected a sent")


def test_prompts_that_are_none(command: Command, model: Path, data: Path, index: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    before = tree(tmp_path)
    for name in ("empty", "missing"):
        path = tmp_path / name
        message = f"{path} is no prompt folder: expected prompt.safetensors and prompt.json in it"
        refused(command("evaluate", data, "--model", model, "--prompts", path), message)
        refused(command("index", data, "--model", model, "--prompts", path, "--out", tmp_path / "out"), message)
        refused(command("search", index, "copper", "--prompts", path), message)
        refused(command("export", path, "--out", tmp_path / "out"), message)
    assert tree(tmp_path) == before


def test_bad_searches(command: Command, index: Path, data: Path, query_prompts: Path, tmp_path: Path) -> None:
    for empty in ("", " \t"):
        refused(command("search", index, empty), "the question is empty; write what you look for in quotes")
    refused(command("search", tmp_path, "copper"), "is not an index folder: it has no manifest.json")
    refused(command("search", data, "copper"), "is not an index folder: it has no manifest.json")
    refused(command("search", index, "copper", "--nprobe", "3"), "an index of type Flat has no nprobe; leave it out")
    too_much = ["--prompts", query_prompts, "--strength", "2"]
    refused(command("search", index, "copper", *too_much), "strength must be from 0 .* to 1 .*, got 2.0")
    for k in ("0", "-3", "many"):
        done = command("search", index, "copper", "-k", k)
        assert done.code == 2
        assert "Invalid value for '-k' / '--top-k'" in done.err or "Invalid value for '--top-k' / '-k'" in done.err
        assert "Traceback" not in done.err


def test_bad_options_of_evaluate_and_index(command: Command, model: Path, data: Path, tmp_path: Path) -> None:
    refused(
        command("evaluate", data, "--model", model, "--split", "tset"), "has no split 'tset'; it has dev, test, train"
    )
    out = tmp_path / "out"
    message = "cannot build the index 'Nonsense' on vectors of dimension 32"
    refused(command("index", data, "--model", model, "--out", out, "--factory", "Nonsense"), message)
    assert list(tmp_path.iterdir()) == []


# --- outputs that exist -------------------------------------------------------------------------------------------


def test_outputs_that_exist_are_refused_before_any_work(
    command: Command, model: Path, data: Path, query_prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*_: object, **__: object) -> None:
        raise AssertionError("work before the check")

    folder, file, new = tmp_path / "folder", tmp_path / "file", tmp_path / "new"
    shutil.copytree(query_prompts, folder)
    file.write_text("old")
    before = tree(tmp_path)
    monkeypatch.setattr("retrieval_prompts.data.beir_folder.load", work)
    monkeypatch.setattr("retrieval_prompts.data.beir_folder.load_corpus", work)
    monkeypatch.setattr(BiEncoder, "load", work)
    for arguments in (
        ["tune", data, "--out", folder],
        ["tune", data, "--out", new, "--json", file],
        ["evaluate", data, "--json", file],
        ["evaluate", data, "--run", file],
        ["index", data, "--out", folder],
        ["export", query_prompts, "--out", folder],
    ):
        path = file if file in arguments else folder
        refused(command(*arguments), f"{path} exists already; choose another name or pass --overwrite")
    # What is no output of ours stays, whatever is passed
    for arguments, path, holds in (
        (["tune", data, "--out", data], data, "prompt.json"),
        (["tune", data, "--out", file], file, "prompt.json"),
        (["index", data, "--out", folder], folder, "manifest.json"),
        (["export", query_prompts, "--out", folder], folder, "modules.json"),
    ):
        message = f"{path} is not replaced, for it is something else: it holds no {holds}; choose another name"
        refused(command(*arguments, "--overwrite"), message)
    refused(command("evaluate", data, "--json", folder, "--overwrite"), f"{folder} is a folder; expected the name of a")
    message = f"{folder} is not replaced, for it is something else: it holds no results.json; choose another name"
    refused(command("evaluate", data, "--run", folder, "--overwrite"), message)
    refused(command("tune", data, "--out", file / "out"), f"{file / 'out'} cannot be written: {file} is not a folder")
    assert tree(tmp_path) == before


def test_outputs_are_replaced_on_request(
    command: Command, model: Path, data: Path, query_prompts: Path, index: Path, tmp_path: Path
) -> None:
    out, result, run, place, checkpoint = (tmp_path / name for name in ("out", "result", "run", "index", "checkpoint"))
    shutil.copytree(query_prompts, out)
    shutil.copytree(index, place)
    checkpoint.mkdir()
    (checkpoint / "modules.json").write_text("[]")
    (checkpoint / "config_sentence_transformers.json").write_text("{}")
    result.write_text("old")
    run.mkdir()
    (run / "results.json").write_text("{}")
    (run / "data.frozen.trec").write_text("")
    before = tree(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    for arguments in (
        ["tune", data, "--model", model, "--out", out, "--json", result, "--seed", "1", *ONCE],
        ["evaluate", data, "--model", model, "--run", run, "--json", result],
        ["index", data, "--model", model, "--out", place, "--factory", "SQfp16"],
        ["export", query_prompts, "--out", checkpoint],
    ):
        assert command(*arguments, "--overwrite").code == 0
    after = tree(tmp_path)
    for name in (
        "out/prompt.safetensors",
        "result",
        "run/results.json",
        "index/index.faiss",
        "checkpoint/modules.json",
    ):
        assert before[name] != after[name]
    assert sorted(path.name for path in tmp_path.iterdir()) == names  # nothing lies beside them


# --- interruptions ------------------------------------------------------------------------------------------------


def test_ctrl_c_leaves_a_checkpoint_and_the_same_command_goes_on(
    command: Command, model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def arguments(out: str) -> list[Any]:
        return ["tune", data, "--out", tmp_path / out, "--model", model, *ONCE]

    calls = 0

    def interrupt(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return info_nce(*given)

    assert command(*arguments("whole")).code == 0
    with monkeypatch.context() as patch:
        patch.setattr(tuning, "info_nce", interrupt)
        done = command(*arguments("out"))
    assert done.code == 130
    assert done.err.endswith("\ninterrupted; the same command goes on from where it was\n")
    assert "Traceback" not in done.err
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".partial", ""]
    assert command(*arguments("out")).code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_a_killed_tune_goes_on_to_the_same_prompt(command: Command, model: Path, data: Path, tmp_path: Path) -> None:
    def arguments(out: str) -> list[Any]:
        long = ["--epochs", "100", "--max-steps", "200", "--side", "both"]
        return ["tune", data, "--out", tmp_path / out, "--model", model, *QUICK, *long]

    process = subprocess.Popen(
        [sys.executable, "-m", "retrieval_prompts.cli.app", *map(str, arguments("out"))],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": str(_threads())},
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("*.partial")):
        assert process.poll() is None, "it ended before its first checkpoint"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [path.suffix for path in tmp_path.iterdir() if not path.name.startswith(".")] == [".partial"]
    done = command(*arguments("out"))
    assert done.code == 0
    assert not re.search(r"^frozen: dev", done.err, re.MULTILINE)  # it did not begin anew
    assert command(*arguments("whole")).code == 0
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == ["out", "whole"]


def test_what_is_missing_beside_finished_prompts_is_made_without_training(
    command: Command, model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, result, report = (tmp_path / name for name in ("out", "result.json", "report.html"))
    arguments = ["tune", data, "--out", out, "--model", model, "--json", result, "--report", report, *ONCE]
    assert command(*arguments).code == 0
    before = tree(out)
    found = json.loads(result.read_text())
    refused(command(*arguments), "out exists already; choose another name or pass --overwrite")
    result.write_text("kept")
    report.unlink()
    refused(command(*arguments, "--seed", "5"), "out exists already, made by a run with other settings, data or model")
    monkeypatch.setattr(tuning, "info_nce", None)
    assert command(*arguments).code == 0
    assert (tree(out), result.read_text()) == (before, "kept")
    assert report.stat().st_size > 10_000
    result.unlink()
    assert command(*arguments).code == 0
    again = json.loads(result.read_text())
    for name in ("systems", "tests", "choice", "weights", "settings"):
        assert again[name] == found[name]
    for each in (again, found):  # without times
        del each["recommendation"]["milliseconds"], each["recommendation"]["cost"], each["recommendation"]["sentence"]
    assert again["recommendation"] == found["recommendation"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "report.html", "result.json"]


LAST = "cli.commands.tuning.evaluate.write_runs"


@pytest.mark.parametrize("written", ["result.json", "page.html"])
def test_what_an_evaluation_wrote_before_it_was_cut_short_is_made_again(
    command: Command, model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    paths = [tmp_path / name for name in ("result.json", "page.html", "runs")]
    arguments = ["evaluate", data, "--model", model, "--json", paths[0], "--report", paths[1], "--run", paths[2]]

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"retrieval_prompts.{'report.page.write_report' if written == 'result.json' else LAST}", stop)
        assert command(*arguments).code == 130
    assert (tmp_path / written).exists() and not paths[2].exists()
    (tmp_path / "..result.json.unfinished.new-abcd1234").touch()  # as a kill while that was written leaves it
    other = command("evaluate", data, "--model", model, "--json", paths[0])
    assert other.err == f"error: {paths[0]} exists already; choose another name or pass --overwrite (overwrite=True)\n"
    assert command(*arguments).code == 0
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    assert "exists already" in command(*arguments).err


def test_an_evaluation_that_fails_is_a_warning_and_a_status(
    command: Command, model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    out, result = tmp_path / "out", tmp_path / "result.json"
    arguments = ["tune", data, "--out", out, "--model", model, "--json", result, *ONCE]
    with monkeypatch.context() as patch:
        patch.setattr("retrieval_prompts.experiments.retrieval._evaluate", fail)
        done = command(*arguments)
    assert done.code == 1
    assert done.err.splitlines()[-1] == (
        f"warning: the prompts are saved in {out}, but their evaluation failed ([Errno 28] No space left on device); "
        "the same command evaluates them again without training"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    monkeypatch.setattr(tuning, "info_nce", None)
    assert command(*arguments).code == 0
    assert json.loads(result.read_text())["systems"]["tuned"]


def test_two_runs_into_one_output(command: Command, model: Path, data: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from retrieval_prompts.files import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    for name, arguments in (
        ("out", ["tune", data, "--out", tmp_path / "out"]),
        ("r.json", ["tune", data, "--out", tmp_path / "out", "--json", tmp_path / "r.json"]),
        ("index", ["index", data, "--out", tmp_path / "index"]),
        ("run", ["evaluate", data, "--run", tmp_path / "run"]),
        (
            "bench/results.json",
            ["beir", "--datasets", data.name, "--data-dir", data.parent, "--out", tmp_path / "bench"],
        ),
    ):
        with subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / name)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            refused(command(*arguments, "--model", model), f"{tmp_path / name} is being written by another run; wait")
            other.communicate("")
    assert list(tmp_path.iterdir()) == []


def test_sigterm_clears_away_and_has_its_status(
    command: Command, model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def terminated(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("retrieval_prompts.prompts.folder.write_json", terminated)  # half of the folder is written
    done = command("tune", data, "--model", model, "--out", tmp_path / "out", *ONCE)
    assert done.code == 143
    assert done.err.splitlines()[-1] == "terminated; the same command goes on from where it was"
    assert "Traceback" not in done.err
    assert [path.suffix for path in tmp_path.iterdir()] == [".partial"]
    assert signal.getsignal(signal.SIGTERM) == before


def _threads() -> int:
    import torch

    return torch.get_num_threads()


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(28, "No space left on device")])
def test_what_the_system_refuses_is_one_line(
    command: Command, model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("retrieval_prompts.prompts.folder.write_bytes", fail)
    done = command("tune", data, "--model", model, "--out", tmp_path / "out", *ONCE)
    assert done.code == 2
    assert done.err.splitlines()[-1] == f"error: {error}"
    assert "Traceback" not in done.err
    assert [path.suffix for path in tmp_path.iterdir()] == [".partial"]  # the work is not lost


# --- help ---------------------------------------------------------------------------------------------------------

OPTIONS = {
    "tune": (
        "--out --model --side --kind --encoder --length --init --epochs --lr --batch-size --temperature --negatives "
        "--seed --json --overwrite"
    ),
    "corpus": "--out --queries --judgements --id --title --text --columns --chunk --overlap --duplicates --test --dev",
    "adopt": "--texts --out --ids --id-field --vector-field --sample --factory --bm25 --overwrite",
    "evaluate": "--model --prompts --split --json --run --overwrite",
    "beir": "--datasets --data-dir --out --baselines --report --overwrite",
    "compare": "--qrels --datasets --metric --correction --json --report",
    "index": "--out --model --prompts --bm25 --compare --overwrite",
    "search": "--prompts --top-k -k --bm25-weight --json",
    "serve": "--prompts --prompts-root --host --port --token-file --allow-host --queue --timeout",
    "inspect": "--data --split --html --json --overwrite",
    "merge": "--out --overwrite",
    "list": "--json",
    "diff": "--json",
    "export": "--out --overwrite",
    "convert": "--out --side --overwrite",
    "push": "--private --revision",
    "pull": "--out --overwrite",
    "verify": "--json --overwrite",
    "classify": "--out --prompts --labels --test --text --label --name --shots --head --model --max-steps --lr --json",
    "generator": "--out --generator --pairs --length --max-steps --lr --json --overwrite",
}


def test_help_lists_every_command_and_option(command: Command) -> None:
    done = command("--help")
    assert done.code == 0
    group: Any = typer.main.get_command(cli.app)
    assert set(group.commands) == set(OPTIONS)
    for name, sub in group.commands.items():
        assert re.search(rf"^ +{name} +\S", done.out, re.MULTILINE)
        text = command(name, "--help").out
        declared = {option for parameter in sub.params for option in parameter.opts if option.startswith("-")}
        for option in declared | set(OPTIONS[name].split()):
            assert re.search(rf"(^|[ ,]){option}\b", text, re.MULTILINE), (name, option)


def test_without_a_command_there_is_help(command: Command) -> None:
    done = command()
    assert done.code in (0, 2)
    assert "tune" in done.out + done.err
    assert command("tune").code == 2


def test_the_command_line_starts_without_heavy_libraries() -> None:
    code = (
        "import sys\n"
        "sys.argv = ['retrieval-prompts', '--help']\n"
        "from retrieval_prompts.cli.app import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        "    print({'torch', 'transformers', 'faiss', 'numpy', 'scipy', 'bm25s'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
