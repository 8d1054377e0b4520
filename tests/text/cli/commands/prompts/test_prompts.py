"""merge, list and diff, and prompts with a name: what a user gets of two prompt folders, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from command_line import Command

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.beir_folder import load
from retrieval_prompts.prompts.folder import load_prompts
from retrieval_prompts.prompts.label import Label
from retrieval_prompts.prompts.writing_folder import WritingPrompt


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, two data folders and, in `shelf`, prompts that say they were tuned on the one and on the other."""
    desk = tmp_path_factory.mktemp("desk")
    tiny.write_model(desk)  # in `model`
    for seed, name in enumerate("AB"):
        data = load(tiny.write_data(desk / f"data{name}", dev=True, seed=seed))
        biencoder = BiEncoder.load(desk / "model", device="cpu").attach(length=3, seed=seed)
        systems = {"frozen": {"all": 0.5, "ndcg@10": 0.5}, "tuned": {"all": 0.625, "ndcg@10": 0.75}}
        biencoder.training_record = {
            "dataset": data.name,
            "corpus": data.corpus.fingerprint,
            "settings": {"seed": seed, "kind": "input"},
            "choice": {"systems": systems},
            "results": {"test": systems},
        }
        biencoder.label = Label(name, f"tuned on\n{name}", "1.0") if name == "A" else Label()
        biencoder.save(desk / "shelf" / name)
    return desk


def refused(command: Command, *arguments: object, message: str) -> None:
    done = command(*arguments)
    assert done.code == 2, done.out
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert message in done.err


def test_merged_prompts_are_a_prompt_folder(command: Command, desk: Path, tmp_path: Path) -> None:
    both = [desk / "shelf" / name for name in "AB"]
    mixed: list[object] = ["--method", "mixture", "--data", desk / "dataA", "--data", desk / "dataB"]
    ways: dict[str, list[object]] = {
        "average": ["--weights", "1,3"],
        "concatenation": ["--method", "concatenation"],
        "mixture": mixed,
    }
    for name, options in ways.items():
        done = command("merge", *both, *options, "--out", tmp_path / name, "--name", name)
        assert done.code == 0, done.err
        assert f"{name} of 2 input prompts" in done.out
        found = command("evaluate", desk / "dataA", "--prompts", tmp_path / name, "--no-bm25", "--json", "-")
        assert found.code == 0, found.err
        assert set(found.json["systems"]) == {"frozen", "tuned"}
        assert BiEncoder.load(prompts=tmp_path / name, device="cpu").label == Label(name)
    assert command("verify", tmp_path).out.count("prompts, sound") == 3
    assert command("index", desk / "dataA", "--model", desk / "model", "--out", tmp_path / "index").code == 0
    for name in ways:
        assert command("search", tmp_path / "index", "copper", "--prompts", tmp_path / name).code == 0
        out = ("--out", tmp_path / f"export of {name}")
        if name == "mixture":
            message = "and a stock checkpoint holds one prompt for all: use BiEncoder, or"
            refused(command, "export", tmp_path / name, *out, message=message)
        else:
            assert command("export", tmp_path / name, *out).code == 0
    again = [tmp_path / "mixture", desk / "shelf" / "A", "--out", tmp_path / "again"]
    refused(command, "merge", *again, message="mixture: its prompts are a mixture already")


def test_a_mixture_gives_its_own_queries_its_own_prompt(command: Command, desk: Path, tmp_path: Path) -> None:
    data = [load(desk / f"data{name}") for name in "AB"]
    texts = [[each.queries[query] for query in each.qrels["train"]] for each in data]
    options = ["--method", "mixture", "--data", desk / "dataA", "--data", desk / "dataB", "--temperature", "0.001"]
    for weights, own in (("1,0", "A"), ("0,1", "B"), ("0,0", None)):
        out = tmp_path / f"weights {weights}"
        line = ("merge", desk / "shelf" / "A", desk / "shelf" / "B", *options, "--weights", weights, "--out", out)
        assert command(*line).code == 0
        mixture = BiEncoder.load(prompts=out, device="cpu")
        alone = BiEncoder.load(desk / "model", desk / "shelf" / own if own else None, device="cpu")
        asked = texts["AB".index(own)] if own else texts[0]
        same = np.abs(mixture.encode_query(asked) - alone.encode_query(asked)).max(axis=1) < 1e-6
        assert same.mean() > 0.5, "but for those near the floor or below it"
    assert np.array_equal(mixture.encode_query(texts[0]), alone.encode_query(texts[0]))


def test_what_cannot_be_merged(command: Command, desk: Path, tmp_path: Path) -> None:
    a, b, out = desk / "shelf" / "A", desk / "shelf" / "B", ("--out", tmp_path / "out")
    refused(command, "merge", a, *out, message="expected two prompt folders or more, got 1")
    refused(command, "merge", a, b, *out, "--weights", "a,b", message="--weights: expected numbers with commas")
    for value in ("0", "1"):
        refused(command, "merge", a, b, *out, "--temperature", value, message="--temperature: used with --method mix")
    hub = ("merge", a, "hf:me/b", *out, "--trust-remote-code")
    refused(command, *hub, message="prompts from the hub do not choose whose code runs")
    mixed = ("merge", a, b, *out, "--method", "mixture")
    refused(command, *mixed, message="pass --data once for each of 2 folders, in their order; got 0")
    turned = ("--data", desk / "dataB", "--data", desk / "dataA")
    refused(command, *mixed, *turned, message="A was tuned on dataA, not on dataB; pass the data of each prompt folder")
    straight = ("--data", desk / "dataA", "--data", desk / "dataB")
    refused(command, *mixed, *straight, "--temperature", "0", message="--temperature must be from 0.0001 to 10000")
    assert not (tmp_path / "out").exists()


def test_a_shelf(command: Command, desk: Path, tmp_path: Path) -> None:
    shutil.copytree(desk / "shelf", tmp_path / "shelf")
    broken = tmp_path / "shelf" / "deep" / "C"
    shutil.copytree(desk / "shelf" / "B", broken)
    (broken / "prompt.json").write_text("{}")
    done = command("list", tmp_path / "shelf")
    assert done.code == 0
    assert "A: tuned on A\n" in done.out
    assert f"{broken}: cannot be read: " in done.out
    a, b, c = command("list", tmp_path / "shelf", "--json", "-").json
    assert (a["name"], a["version"], a["description"], b["name"], b["version"]) == ("A", "1.0", "tuned on\nA", "B", "")
    assert (a["kind"], a["lengths"], a["strength"], a["tuned_on"]) == ("input", {"query": 3}, 1, "dataA")
    assert a["gains"] == {"dev": 0.125, "test": 0.25}
    assert (a["problem"], b["problem"]) == ("", "")
    assert c["problem"]
    assert command("list", desk / "shelf" / "A", "--json", "-").json[0]["name"] == "A"
    base = {"name": "writer", "fingerprint": "f" * 64, "width": 4}
    WritingPrompt(torch.ones(2, 4), base).save(tmp_path / "shelf" / "W")
    writing = command("list", tmp_path / "shelf", "--json", "-").json[2]
    assert (writing["name"], writing["kind"], writing["model"]) == ("W", "a language model, input", "writer")
    assert (writing["lengths"], writing["problem"]) == ({}, "")
    about = json.loads((tmp_path / "shelf" / "A" / "prompt.json").read_text())
    for shape in ([3], 5, ["x", 1, 1]):
        without_seal = {name: value for name, value in about.items() if name != "sha256"}
        (broken / "prompt.json").write_text(json.dumps(without_seal | {"tensors": {"query": shape}}))
        assert f"{broken}: cannot be read: " in command("list", tmp_path / "shelf").out
    (tmp_path / "empty").mkdir()
    assert "holds no prompt folder" in command("list", tmp_path / "empty").out
    refused(command, "list", tmp_path / "nothing", message="nothing is not a folder; expected one that holds prompt")


def test_two_prompts_compared(command: Command, desk: Path, tmp_path: Path) -> None:
    a, b = desk / "shelf" / "A", desk / "shelf" / "B"
    done = command("diff", a, b, "--data", desk / "dataA", "--json", tmp_path / "diff.json")
    assert done.code == 0, done.err
    assert "tuned on different documents" in done.out
    found = json.loads((tmp_path / "diff.json").read_text())
    assert found["settings"]["setting seed"] == [0, 1]
    assert "setting kind" not in found["settings"]
    one, other = (load_prompts(each).vectors["query"][0].numpy() for each in (a, b))
    cosines = (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    assert found["vectors"]["query"]["cosines"] == pytest.approx(cosines, abs=1e-6)
    assert found["queries"]["queries"] == 10
    assert found["queries"]["cosine"] < 1
    same = command("diff", a, a, "--data", desk / "dataA", "--split", "dev")
    assert "what they are and how they were trained is the same" in same.out
    assert "tuned on the same documents" in same.out
    assert "cosine of a query's two vectors 1.000 (lowest 1.000); 10.0 of the first 10 documents" in same.out
    refused(command, "diff", a, b, "--split", "dev", message="--split is a split of the data; pass --data as well")
    assert command("merge", a, b, "--method", "concatenation", "--out", tmp_path / "longer").code == 0
    nearest = command("diff", a, tmp_path / "longer").out
    assert "query vectors, 3 and 6: cosine of the shorter with the nearest of the longer 1.000" in nearest


def test_tune_keeps_a_name(command: Command, desk: Path, tmp_path: Path) -> None:
    label = ("--name", "claims", "--description", "of science", "--prompt-version", "2")
    quick = ("--max-steps", "2", "--length", "2", "--folds", "1")
    line = ("tune", desk / "dataA", "--model", desk / "model", "--out", tmp_path / "out", *quick)
    assert command(*line, *label).code == 0
    about = json.loads((tmp_path / "out" / "prompt.json").read_text())
    assert (about["name"], about["description"], about["version"]) == ("claims", "of science", "2")
    refused(command, *line[:-1], "1", "--overwrite", "--name", " ", message="the name of prompts must be a text of 1")
