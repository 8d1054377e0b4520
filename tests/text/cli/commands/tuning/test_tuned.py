"""tune and evaluate as a user meets them: machine output, what is said, what is warned of."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
from command_line import Command
from text_commands import ONCE, QUICK, SYSTEMS, refused

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.beir_folder import load
from retrieval_prompts.data.judgements import read_qrels
from retrieval_prompts.evaluation.metrics import METRICS, means, per_query
from retrieval_prompts.evaluation.trec_runs import read_run
from retrieval_prompts.files import sealed

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
