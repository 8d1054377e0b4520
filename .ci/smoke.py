"""What `release` tries with an installed package, in an empty folder: commands, public names, types, tunings."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import tiny
import tiny_clip

CLIENT = """\
from pathlib import Path

from multimodal import PromptClassifier
from retrieval_prompts import BiEncoder, Index

biencoder: BiEncoder = BiEncoder.load("all-MiniLM-L6-v2")
index: Index = Index.open(Path("index"))
classifier = PromptClassifier(method="coop")
strength: float = biencoder.strength
"""
WRONG = "from retrieval_prompts import Index\n\nindex: int = Index.open(Path('index'))\nIndex.open(3.5)\n"


def run(*command: str, code: int = 0) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def main() -> None:
    for package in ("retrieval_prompts", "multimodal"):
        module = importlib.import_module(package)
        assert module.__file__ is not None and Path(sys.prefix) in Path(module.__file__).parents, module.__file__
        for name in module.__all__:
            getattr(module, name)
    print("public names: there")
    for program in ("retrieval-prompts", "multimodal-prompts"):
        assert "tune" in run(program, "--help")
    print("--help: both")

    Path("client.py").write_text(CLIENT)
    Path("wrong.py").write_text(f"from pathlib import Path\n\n{WRONG}")
    mypy = (sys.executable, "-m", "mypy", "--strict")
    run(*mypy, "client.py")
    found = run(*mypy, "wrong.py", code=1)
    assert "Incompatible types in assignment" in found and 'Argument 1 to "open"' in found, found
    print("types: mypy sees them")

    tiny.write_data(Path("toy"), dev=True)
    model = str(tiny.write_model(Path("made")))
    quick = ("--epochs", "1", "--batch-size", "8", "--length", "2", "--folds", "1", "--kind", "input")
    run("retrieval-prompts", "tune", "toy", "--model", model, "--out", "prompts", "--report", "page.html", *quick)
    run("retrieval-prompts", "index", "toy", "--model", model, "--out", "index")
    assert "dense" in run("retrieval-prompts", "search", "index", "river copper", "--prompts", "prompts")
    tiny_clip.write_images(Path("pictures"))
    run("multimodal-prompts", "tune", "pictures", "--out", "clip-prompts", "--epochs", "1", "--shots", "1")
    assert "blue" in run("multimodal-prompts", "classify", "clip-prompts", "pictures/test")
    run("retrieval-prompts", "verify", "prompts", "index", "clip-prompts")
    print("tune, index, search, classify, verify: they run")


if __name__ == "__main__":
    main()
