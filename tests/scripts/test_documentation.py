"""The documentation names what there is: commands and options, scripts, targets, and every public name."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from multimodal.cli.app import app as image_app
from retrieval_prompts.cli.app import app as text_app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "eval/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAMS: dict[str, Any] = {"retrieval-prompts": text_app, "multimodal-prompts": image_app}


def typed() -> Iterator[tuple[str, str]]:
    """(page, command) of every line that is typed in a console block."""
    for page in PAGES:
        for block in re.findall(r"```console\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            for line in re.findall(r"^\$ (.*(?:\n    .*)*)", block, re.MULTILINE):
                yield str(page.relative_to(ROOT)), re.sub(r"\\?\n", " ", line)


@pytest.mark.parametrize(("page", "line"), list(typed()))
def test_what_is_typed_is_there(page: str, line: str) -> None:
    """Programs, commands, options, scripts and targets; what they do is proved where they are tested."""
    words = shlex.split(re.sub(r"\s+# .*", "", line))
    while re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words.pop(0)
    if words[0] in PROGRAMS:
        commands = typer.main.get_command(PROGRAMS[words[0]])
        if words[1].startswith("-"):
            return
        command = commands.commands[words[1]]  # type: ignore[attr-defined]
        known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        assert {word.partition("=")[0] for word in words[2:] if re.match(r"--?[a-z]", word)} <= known
    elif words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets
    elif words[0] == "python":
        scripts = [word for word in words if re.fullmatch(r"(eval|docs/examples)/.+\.py", word)]
        modules = [word.replace(".", "/") + ".py" for word in words if word.startswith("eval.")]
        assert scripts or modules
        assert all((ROOT / path).is_file() for path in (scripts[:1] + modules))
    else:
        assert words[0] in ("pip", "docker", "curl", "echo", "source", "accelerate", "torchrun")


def test_the_first_page_is_short() -> None:
    assert len(PAGES[0].read_text(encoding="utf-8").splitlines()) <= 130


@pytest.mark.parametrize(("package", "page"), [("retrieval_prompts", "text"), ("multimodal", "images")])
def test_every_public_name_is_explained(package: str, page: str) -> None:
    module = importlib.import_module(package)
    reference = (ROOT / f"docs/api/{page}.md").read_text(encoding="utf-8")
    for name in module.__all__:
        assert f"::: {package}.{module._HOMES[name]}.{name}\n" in reference
        thing = getattr(module, name)
        assert inspect.getdoc(thing)
        if inspect.isclass(thing) and thing.__module__.startswith(package):
            missing = [
                member
                for member, value in vars(thing).items()
                if not member.startswith("_") and callable(value) and not inspect.getdoc(value)
            ]
            assert not missing, f"{name}: {missing}"


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page}: {link}"


def test_the_site_is_built_strictly(tmp_path: Path) -> None:
    """Links, pages and what docstrings say of parameters; a warning ends it."""
    pytest.importorskip("mkdocstrings", reason="needs mkdocs (extra `docs`)")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "encode_query" in (tmp_path / "site/api/text.html").read_text(encoding="utf-8")


def test_the_citation_has_the_version_of_the_package() -> None:
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert f"version: {version[1]}\n" in (ROOT / "CITATION.cff").read_text()
