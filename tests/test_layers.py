"""The house keeps its rules: floors, no circles, wrapped libraries, sizes, names, results that are returned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import layers
import pytest
from layers import Module

ROOT = Path(__file__).parents[1]
# What the objects that people hold offer for convenience, imported where it is asked for
UPWARD = {
    ("retrieval_prompts.biencoder", "retrieval_prompts.interop.export"): "BiEncoder.export",
    ("retrieval_prompts.biencoder", "retrieval_prompts.interop.sharing.hub"): "push_to_hub, from_hub, load of hf:",
    ("retrieval_prompts.biencoder", "retrieval_prompts.interop.live"): "BiEncoder.as_sentence_transformer",
    ("multimodal.classifier", "multimodal.interop.class_matrix"): "PromptClassifier.export",
    ("multimodal.classifier", "multimodal.interop.live"): "PromptClassifier.as_sentence_transformer",
    ("multimodal.classifier", "multimodal.training.classes"): "PromptClassifier.fit",
    ("multimodal.classifier", "multimodal.training.method_choice"): "PromptClassifier.fit of the method auto",
    (
        "multimodal.classifier",
        "multimodal.training.settings",
    ): "PromptClassifier(epochs=...) takes what fit trains by",
}
# Base names that occur twice, and what they mean in both places
NAMESAKES = {
    "answering": "rows of a served batch: what comes of them",
    "asked": "bodies of requests to a server: the rows that they ask for",
    "captions": "pictures with captions: how they are read, trained on, compared, run",
    "classes": "labelled pictures: how they are trained on, how they are run",
    "feedback": "prompts that are made for each query from what a first search finds",
    "folder": "the folder of prompts",
    "live": "a SentenceTransformer of frozen model and prompts",
    "metrics": "figures of a ranking, or of predictions",
    "retrieval": "queries and documents: how prompts are trained on them, how such an experiment is run",
    "served": "prompts as a server holds them",
    "settings": "what a prompt is, and how it is trained",
    "task": "what a training step computes",
    "teacher": "what training follows where nothing is judged or labelled",
    "text": "a frozen text tower",
    "web": "the addresses of a server",
}


@pytest.fixture(scope="module")
def modules() -> dict[str, Module]:
    return layers.sources(ROOT)


def test_no_import_runs_upwards(modules: dict[str, Module]) -> None:
    assert layers.upward(modules, UPWARD) == []


def test_every_exception_is_still_needed(modules: dict[str, Module]) -> None:
    assert {pair for pair in UPWARD if pair[1] in layers.imports(modules[pair[0]], modules)} == UPWARD.keys()


def test_no_imports_go_round_in_circles(modules: dict[str, Module]) -> None:
    assert layers.circles(modules, UPWARD) == []


def test_libraries_are_imported_where_they_are_wrapped(modules: dict[str, Module]) -> None:
    assert layers.strangers(modules) == []


def test_folders_files_and_functions_are_small(modules: dict[str, Module]) -> None:
    assert layers.too_large(modules) == []


def test_a_name_that_occurs_twice_means_the_same(modules: dict[str, Module]) -> None:
    assert layers.namesakes(modules) == NAMESAKES.keys()


def test_results_are_returned(modules: dict[str, Module]) -> None:
    assert layers.out_parameters(modules) == []


def test_the_significance_level_has_one_home(modules: dict[str, Module]) -> None:
    assert layers.levels(modules) == []


# --- and a house that breaks them ----------------------------------------------------------------------------------


House = Callable[[dict[str, str]], dict[str, Module]]
LINES, APP = "retrieval_prompts/data/lines", "retrieval_prompts/cli/app"


@pytest.fixture
def house(tmp_path: Path) -> House:
    """File -> text, and the modules of a house made of them."""

    def build(files: dict[str, str]) -> dict[str, Module]:
        for name, text in files.items():
            path = tmp_path / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return layers.sources(tmp_path)

    return build


@pytest.mark.parametrize(
    "text",
    [
        "from retrieval_prompts.cli.app import main",
        "import retrieval_prompts.cli.app",
        "from retrieval_prompts.cli import app",
        "def later():\n    from retrieval_prompts.cli.app import main",
        "if TYPE_CHECKING:\n    from retrieval_prompts.cli.app import main",
    ],
)
def test_an_upward_import_is_found(house: House, text: str) -> None:
    made = house({LINES: text, APP: ""})
    broken = "retrieval_prompts.data.lines (floor 1) imports retrieval_prompts.cli.app (floor 10)"
    assert layers.upward(made) == [broken]
    assert layers.upward(made, [("retrieval_prompts.data.lines", "retrieval_prompts.cli.app")]) == []


def test_the_core_may_not_know_multimodal(house: House) -> None:
    assert (
        layers.upward(house({"multimodal/cli/app": "import retrieval_prompts.errors", "multimodal/errors": ""})) == []
    )
    assert len(layers.upward(house({APP: "import multimodal.errors"}))) == 1


def test_a_circle_is_found(house: House) -> None:
    later = "def later():\n    from retrieval_prompts.data.lines import y"
    made = house({LINES: "from retrieval_prompts.data.b import x", "retrieval_prompts/data/b": later})
    assert len(layers.circles(made)) == 1
    assert layers.circles(made, [("retrieval_prompts.data.b", "retrieval_prompts.data.lines")]) == []


@pytest.mark.parametrize("text", ["import faiss", "def f():\n    from faiss.contrib import x", "import typer as t"])
def test_a_stranger_is_found(house: House, text: str) -> None:
    assert len(layers.strangers(house({LINES: text}))) == 1
    assert layers.strangers(house({LINES: "", "retrieval_prompts/vectors/index": "import faiss"})) == []


def test_what_is_too_large_is_found(house: House) -> None:
    long = 'def f():\n    """Words.\n\n    More.\n    """\n' + "    x = 1\n" * 60
    wide = f"def g({', '.join('abcdefgh')}, *, i=1): ...\n"
    name = "retrieval_prompts.data.lines"
    assert layers.too_large(house({LINES: long})) == []
    assert layers.too_large(house({LINES: f"{long}    x = 2\n"})) == [f"{name}.f: 61 lines"]
    assert layers.too_large(house({LINES: wide})) == [f"{name}.g: 9 parameters"]
    assert layers.too_large(house({LINES: "", APP: wide})) == []
    assert layers.too_large(house({LINES: "x = 1\n" * 401})) == [f"{name}: 401 lines"]
    many = {f"retrieval_prompts/vectors/m{number}": "" for number in range(14)}
    assert layers.too_large(house({LINES: "", **many})) == []
    (broken,) = layers.too_large(house({"retrieval_prompts/vectors/one_more": ""}))
    assert broken.endswith("vectors: 15 entries")


def test_a_name_for_two_things_is_found(house: House) -> None:
    made = house({"retrieval_prompts/data/pages": "", "multimodal/vectors/pages": "", "multimodal/data/other": ""})
    assert layers.namesakes(made) == {"pages"}


@pytest.mark.parametrize("fill", ["found.append(1)", "found += [1]", "found.extend([1])"])
def test_an_out_parameter_is_found(house: House, fill: str) -> None:
    text = f"def f(found: list[int] | None = None):\n    {fill}\n    own = []\n    own.append(1)"
    assert layers.out_parameters(house({LINES: text})) == ["retrieval_prompts.data.lines.f fills its parameter found"]


def test_a_level_that_is_written_out_is_found(house: House) -> None:
    assert len(layers.levels(house({LINES: "def f(p): return p < 0.05"}))) == 1
