"""retrieval-prompts classify: learn, name, compare; what is read of a table, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
from command_line import Command

from retrieval_prompts import PromptTextClassifier
from retrieval_prompts.data.sources.labelled import few_shot, held_out, read_labelled
from retrieval_prompts.errors import DataWarning, UserError

QUICK = ("--max-steps", 4, "--lr", 0.05, "--length", 2)
NAMES = ("--name", f"stone={' '.join(tiny.WORDS[:10])}", "--name", f"plant={' '.join(tiny.WORDS[10:20])}")


def table(path: Path, each: int, seed: int = 0) -> Path:
    random = np.random.default_rng(seed)
    rows = ["id,text,label"]
    for number in range(2 * each):
        words = random.choice(tiny.WORDS[10 * (number % 2) : 10 * (number % 2) + 10], 5)
        rows.append(f'{number},"{" ".join(words)}",{["stone", "plant"][number % 2]}')
    path.write_text("\n".join(rows) + "\n")
    return path


def test_learn_then_name(command: Command, model: Path, tmp_path: Path) -> None:
    train, test = table(tmp_path / "train.csv", 6), table(tmp_path / "test.csv", 10, seed=1)
    done = command("classify", train, "--test", test, "--out", tmp_path / "p", "--model", model, *QUICK, *NAMES)
    assert done.code == 0, done.err
    assert "12 texts ('text'), labels 'label'" in done.out
    assert "learned from 12 texts of 2 labels; " in done.out
    for said in ("20 test texts (x 100)", "frozen, names of labels", "linear probe", "with prompts", "macro-F1"):
        assert said in done.out
    named = command("classify", test, "--prompts", tmp_path / "p", "--json", "-")
    assert named.code == 0, named.err
    assert {row["label"] for row in named.json} <= {"stone", "plant"}
    assert len(named.json) == 20 and all(0.5 <= row["probability"] <= 1 for row in named.json)
    assert "20 of them have a label that is known: accuracy" in named.err
    again = command("classify", train, "--out", tmp_path / "p", "--model", model)
    assert again.code == 2 and "exists already" in again.err


def test_the_result_is_of_a_part_that_was_held_out(command: Command, model: Path, tmp_path: Path) -> None:
    data = table(tmp_path / "data.csv", 10)
    more = ("--shots", 3, "--json", tmp_path / "r.json", *QUICK)
    done = command("classify", data, "--out", tmp_path / "p", "--model", model, *more)
    assert done.code == 0, done.err
    assert "4 test texts, held out (x 100)" in done.out
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["train_texts"] == 6 and found["test_texts"] == 4 and found["held_out_of_train"]
    assert set(found["systems"]) == {"frozen", "probe", "tuned"}
    assert set(found["systems"]["tuned"]) == {"accuracy", "macro_f1", "ece"}


def test_names_alone(command: Command, model: Path, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text(f"text\n{tiny.WORDS[0]}\n{tiny.WORDS[15]}\n")
    labels = f"{tiny.WORDS[0]},{tiny.WORDS[15]}"
    done = command("classify", tmp_path / "new.csv", "--labels", labels, "--model", model)
    assert done.code == 0, done.err
    assert [line.split()[0] for line in done.out.splitlines()[1:]] == [tiny.WORDS[0], tiny.WORDS[15]]


def test_texts_without_a_label_are_named_too(command: Command, model: Path, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text(f"text,label\n{tiny.WORDS[0]},\n{tiny.WORDS[15]},{tiny.WORDS[15]}\n")
    labels = f"{tiny.WORDS[0]},{tiny.WORDS[15]}"
    done = command("classify", tmp_path / "new.csv", "--labels", labels, "--model", model, "--json", "-")
    assert [row["text"] for row in done.json] == [tiny.WORDS[0], tiny.WORDS[15]]
    assert "1 of them have a label that is known: accuracy 100.0" in done.err


def test_another_label_is_found_before_training(
    command: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PromptTextClassifier, "fit", lambda *_: pytest.fail("trained"))
    test = tmp_path / "test.csv"
    test.write_text("text,label\nriver,moon\n")
    done = command("classify", table(tmp_path / "d.csv", 3), "--test", test, "--out", tmp_path / "p", "--model", model)
    assert done.code == 2 and "the test texts have the label 'moon', which no training text has" in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "pass --out to learn, --prompts for a classifier that was learned, or --labels for names alone"),
        (("--out", "p", "--labels", "a,b"), "pass --out to learn"),
        (("--labels", "a,b", "--shots", 3), "--shots is used with --out, not with --labels"),
        (("--labels", "a,b", "--head", "linear"), "--head is used with --out, not with --labels"),
        (("--prompts", "p", "--lr", 1), "settings of a prompt are used with --out, not with --prompts"),
        (("--prompts", "p"), "is not a prompt folder"),
        (("--out", "p", "--name", "stone"), "--name must be LABEL=WORDS, got 'stone'"),
        (("--out", "p", "--label", "kind"), "has no column 'kind' (--label); it has id, text, label"),
        (("--labels", "a"), "at least two labels, got a"),
    ],
)
def test_mistakes_are_one_line(
    command: Command,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[object, ...],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    table(tmp_path / "train.csv", 2)
    done = command("classify", "train.csv", "--model", model, *arguments)
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert said in line


def test_rows_that_lack_something_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("label,review\nx,good\n,bad\ny,\nz,fine\n")
    with pytest.warns(
        DataWarning, match=r"rows without a label: 1 \(.*t.csv:3\); rows without a text: 1 \(.*t.csv:4\)"
    ):
        found = read_labelled(path)
    assert (found.texts, found.labels) == (["good", "fine"], ["x", "z"])
    path.write_text("label,review\n")
    with pytest.raises(UserError, match="no row with a text and a label"):
        read_labelled(path)
    path.write_text("a,b\none,two\n")
    with pytest.raises(UserError, match="no column looks like a label, of a, b; name it with --label"):
        read_labelled(path)
    assert read_labelled(path, label="a").labels == ["one"]
    assert read_labelled(path, wanted=False).labels == []


def test_draws_are_of_each_label() -> None:
    labels = ["a"] * 10 + ["b"] * 5 + ["c"]
    chosen = few_shot(labels, 3, 0)
    assert [labels[at] for at in chosen] == ["a"] * 3 + ["b"] * 3 + ["c"]
    assert chosen == few_shot(labels, 3, 0) != few_shot(labels, 3, 1)
    rest, out = held_out(labels, 0)
    assert sorted(rest + out) == list(range(16))
    assert [labels[at] for at in out] == ["a", "a", "b"]  # the only "c" is learned from
