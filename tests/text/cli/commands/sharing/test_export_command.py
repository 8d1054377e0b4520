"""export as a user meets it, and ids of any characters."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
from command_line import Command
from text_commands import refused

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.evaluation.trec_runs import read_run


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
