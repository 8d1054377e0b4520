"""Every command of both command lines with odd values of its options and odd texts in its data.

A command ends with status 0 or 1, or with one line and status 2, and sends no command to the terminal.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import odd
import tiny
import tiny_clip
from hypothesis import strategies as st
from readers import Reader

from retrieval_prompts.errors import UNSHOWN

# No value leads out of the folder in which a command runs: some would write there
VALUES = (
    *(
        "",
        " ",
        "-",
        "--",
        "0",
        "1",
        "2",
        "-1",
        "0.5",
        "1e999",
        "nan",
        "inf",
        "-inf",
        "1e-300",
        "9" * 40,
        "1e10",
        "0x10",
        "1_0",
    ),
    *(
        "Flat",
        "IVF9,Flat",
        "HNSW-1",
        "PQ3",
        "IVF99999999,Flat",
        "auto",
        "both",
        "query",
        "prefix",
        "cpu",
        "cuda:9",
        "meta",
    ),
    *(
        "train",
        "test",
        "nothing",
        "a,b",
        ",",
        "toy",
        "toy,toy",
        "ndcg@10",
        "ndcg@0",
        "p@-1",
        "hf:x",
        "hf-hub:x",
        "hf:a/b/c",
    ),
    *(
        "new",
        "new/er",
        "toy/corpus.jsonl",
        "out",
        "r.json",
        "pictures",
        "a.csv",
        "\x1b[2J",
        "\u202ex",
        "\udc80",
        "x" * 5000,
        "ü",
    ),
    *(
        "{}",
        "{",
        "%s",
        "<b>",
        "a b",
        "\n",
        "\t",
        "a photo of a {}.",
        "true",
        "None",
        "bm25",
        "linear",
        "coop",
        "nudge,rrf",
    ),
)
QUICK = ["--epochs", "1", "--batch-size", "8", "--length", "2", "--folds", "1", "--kind", "input"]
BASES: dict[str, dict[str, list[str]]] = {
    "retrieval-prompts": {
        "corpus": ["toy/corpus.jsonl", "--model", "bert", "--out", "out"],
        "adopt": ["index/index.faiss", "--texts", "toy", "--model", "bert", "--out", "out"],
        "tune": ["toy", "--model", "bert", "--out", "out", *QUICK],
        "evaluate": ["toy", "--model", "bert", "--prompts", "prompts"],
        "index": ["toy", "--model", "bert", "--out", "out"],
        "search": ["index", "river copper", "--prompts", "prompts"],
        "merge": ["prompts", "prompts", "--out", "out"],
        "list": ["."],
        "diff": ["prompts", "prompts"],
        "export": ["prompts", "--out", "out"],
        "convert": ["prompts", "--out", "out"],
        "compare": ["runs/a.trec", "runs/b.trec", "--qrels", "toy"],
        "verify": ["index", "prompts", "runs"],
        "push": ["prompts", "someone/something"],
        "pull": ["someone/something"],
        "beir": ["--datasets", "toy", "--data-dir", ".", "--model", "bert", "--out", "out"],
    },
    "multimodal-prompts": {
        "tune": ["pictures", "--model", "clip", "--out", "out", "--epochs", "1", "--shots", "1"],
        "classify": ["clip-prompts", "pictures/test/blue/0.png"],
        "evaluate": ["pictures", "--model", "clip", "--prompts", "clip-prompts"],
        "index": ["pictures", "--model", "clip", "--out", "out"],
        "search": ["image-index", "a blue picture"],
        "export": ["clip-prompts", "--out", "out"],
        "verify": ["image-index"],
    },
}
SLOW = ("tune", "evaluate", "beir", "classify")


def make_inputs(place: Path) -> None:
    """Data, models, prompts, indexes and runs that the commands take."""
    tiny.write_data(place / "toy", dev=True)
    shutil.copytree(tiny.write_model(place / "made"), place / "bert")
    tiny_clip.write_images(place / "pictures")
    tiny_clip.write_clip(place / "clip")
    text, images = "retrieval-prompts", "multimodal-prompts"
    with contextlib.chdir(place):
        for program, arguments in (
            (text, ["tune", "toy", "--model", "bert", "--out", "prompts", *QUICK]),
            (text, ["index", "toy", "--model", "bert", "--out", "index"]),
            (images, ["tune", "pictures", "--model", "clip", "--out", "clip-prompts", "--epochs", "1", "--shots", "1"]),
            (images, ["index", "pictures", "--model", "clip", "--out", "image-index"]),
        ):
            code, output = run(program, arguments)
            assert code == 0, output
    (place / "runs").mkdir()
    for name in "ab":
        lines = [f"q{number} Q0 d{number} 1 {number}.5 {name}" for number in range(30, 40)]
        tiny.write_lines(place / "runs" / f"{name}.trec", lines)


def command_lines(place: Path) -> dict[str, Reader]:
    """Name -> what runs one; place: where `make_inputs` made what they take."""
    found = {
        f"{program} {command}": Reader(_arguments(program, command, base), _runner(place, program))
        for program, own in BASES.items()
        for command, base in own.items()
    }
    return found | {"what terminals get": Reader(_odd_corpus(), _shown(place))}


def run(program: str, arguments: list[str]) -> tuple[int, str]:
    """Status and output of a command in this process."""
    from multimodal.cli import app as images
    from retrieval_prompts.cli import app as texts

    main = texts.main if program == "retrieval-prompts" else images.main
    output = io.StringIO()
    sys.argv = [program, *arguments]
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            main()
        except SystemExit as ended:
            return (ended.code if isinstance(ended.code, int) else int(ended.code is not None)), output.getvalue()
    return 0, output.getvalue()


def _arguments(program: str, command: str, base: list[str]) -> st.SearchStrategy[list[str]]:
    """The base with one to three options of the command and their odd values, or an argument replaced."""
    import typer

    from multimodal.cli import app as images
    from retrieval_prompts.cli import app as texts

    app = texts.app if program == "retrieval-prompts" else images.app
    parameters = typer.main.get_command(app).commands[command].params  # type: ignore[attr-defined]
    options = [(name, each.is_flag) for each in parameters if hasattr(each, "is_flag") for name in each.opts]
    values = st.sampled_from(VALUES)

    def one(option: tuple[str, bool]) -> st.SearchStrategy[list[str]]:
        return st.just([option[0]]) if option[1] else values.map(lambda value: [option[0], value])

    more = st.lists(st.sampled_from(options).flatmap(one), min_size=1, max_size=3).map(
        lambda parts: [word for part in parts for word in part]
    )
    replaced = st.tuples(st.integers(0, len(base) - 1), values).map(
        lambda chosen: [*base[: chosen[0]], chosen[1], *base[chosen[0] + 1 :]]
    )
    added = more.map(lambda extra: [*base, *extra])
    stray = st.one_of(values, st.sampled_from(["--nothing", "--\x1b[2J", "-\u202e"])).map(lambda value: [*base, value])
    return st.one_of(added, added, added, replaced, stray).map(lambda given: [command, *given])


def _runner(place: Path, program: str) -> Any:
    def read(arguments: list[str], folder: Path) -> None:
        shutil.copytree(place, folder, copy_function=os.link, dirs_exist_ok=True)  # files are replaced, never changed
        with contextlib.chdir(folder):
            code, output = run(program, arguments)
        check(code, output)

    return read


def check(code: int, output: str) -> None:
    from retrieval_prompts.errors import UserError

    assert code in (0, 1, 2), f"status {code}"
    if found := UNSHOWN.search(output.replace("\r", "")):  # a progress bar returns to the start of its line
        raise AssertionError(f"{found[0]!r} is sent to the terminal: {output[max(0, found.start() - 80) :][:160]!r}")
    assert "Traceback" not in output, output
    if code == 2:
        errors = [line for line in output.splitlines() if line.lower().startswith("error: ")]
        assert errors or "Usage: " in output, output[-300:]
        assert len(errors) <= 1, output[-300:]
        raise UserError(errors[0] if errors else output.splitlines()[-1])


def _odd_corpus() -> st.SearchStrategy[list[dict[str, str]]]:
    text = st.one_of(odd.texts, st.text(max_size=40)).map(lambda text: text.encode("utf-8", "replace").decode())
    document = st.fixed_dictionaries({"_id": text.map(lambda text: text or "x"), "title": text, "text": text})
    return st.lists(document, min_size=1, max_size=4)


def _shown(place: Path) -> Any:
    def read(corpus: list[dict[str, str]], folder: Path) -> None:
        data = folder / "data"
        shutil.copytree(place / "toy", data)
        tiny.write_lines(data / "corpus.jsonl", [json.dumps(document) for document in corpus])
        model = str(place / "bert")
        with contextlib.chdir(folder):
            check(*run("retrieval-prompts", ["index", "data", "--model", model, "--out", "out"]))
            check(*run("retrieval-prompts", ["search", "out", corpus[0]["title"] or "river"]))
            check(*run("retrieval-prompts", ["search", "out", "river", "--json", "-"]))

    return read
