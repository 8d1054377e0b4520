"""The console, help, and what imports cost."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import typer
from command_line import Command
from fresh_process import HEAVY

import multimodal
import retrieval_prompts
from multimodal.cli import app as cli
from retrieval_prompts.cli import console
from retrieval_prompts.errors import DataWarning, UserError
from retrieval_prompts.evaluation.tables import rich_table


def test_the_console(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(error: BaseException) -> tuple[Any, str]:
        def app() -> None:
            raise error

        with pytest.raises(SystemExit) as ended:
            console.run(app)
        return ended.value.code, capsys.readouterr().err

    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    assert ends(UserError("two\n  lines")) == (2, "error: two lines\n")
    assert ends(FileNotFoundError(2, "No such file", "a")) == (2, "error: [Errno 2] No such file: 'a'\n")
    assert ends(SystemExit(130)) == (130, "interrupted; the same command goes on from where it was\n")
    assert ends(SystemExit(0)) == (0, "")
    with pytest.raises(ZeroDivisionError):
        console.run(lambda: 1 / 0)  # a mistake of ours keeps its traceback
    for _ in range(2):
        warnings.showwarning(DataWarning("odd\ndata"), DataWarning, "file.py", 1)
    warnings.showwarning(DeprecationWarning("not the user's"), DeprecationWarning, "file.py", 1)
    assert capsys.readouterr().err == "warning: odd data\n"

    console.printer(None)("for people")
    console.printer(Path("-"))("beside JSON")
    console.printer(tmp_path / "result.json")("for people")
    console.write_result(Path("-"), {"name": "café"})
    captured = capsys.readouterr()
    assert captured.out == 'for people\nfor people\n{\n  "name": "café"\n}\n' and captured.err == "beside JSON\n"
    console.write_result(tmp_path / "result.json", {"name": "café"})
    assert json.loads((tmp_path / "result.json").read_text()) == {"name": "café"}
    odd = "\x1b[2J\x9b31m\u202etxt\x07\ta\nb"
    console.say(odd)
    console.warn(odd)
    console.printer(None)(rich_table([[odd, 1.0]], ["name", odd]))
    console.write_result(Path("-"), {"name": odd})
    captured = capsys.readouterr()
    assert not set("\x1b\x9b\u202e\x07") & set(captured.out + captured.err)
    assert captured.out.startswith("\\x1b[2J\\x9b31m\\u202etxt\\x07\ta\nb\n")
    assert captured.err == "warning: \\x1b[2J\\x9b31m\\u202etxt\\x07 a b\n"
    assert json.loads(captured.out[captured.out.index("{") :])["name"] == odd
    assert ends(UserError(odd)) == (2, "error: \\x1b[2J\\x9b31m\\u202etxt\\x07 a b\n")
    console.check_outputs(None, overwrite=False)
    console.check_outputs(Path("-"), overwrite=False)
    console.check_outputs(tmp_path / "result.json", overwrite=True)
    with pytest.raises(UserError, match=r"result.json exists already"):
        console.check_outputs(tmp_path / "result.json", overwrite=False)


OPTIONS = {
    "tune": (
        "--out --model --pretrained --method --shots --context --init --class-file --template --epochs --lr --seed "
        "--views --json --report --overwrite"
    ),
    "classify": "--classes --top-k -k --model --html --json",
    "evaluate": "--prompts --protocol --split --json --run --report --source",
    "index": "--out --model --captions --factory --overwrite",
    "search": "--prompts --image --images --html --json --top-k -k",
    "serve": "--prompts --prompts-root --host --port --token-file --max-body --max-pixels --max-classes --images",
    "export": "--out --classes --overwrite",
    "inspect": "--data --html --json --overwrite",
    "verify": "--json --overwrite",
}


def test_help_lists_every_command_and_option(command: Command) -> None:
    done = command("--help")
    assert done.code == 0
    group: Any = typer.main.get_command(cli.app)
    assert set(group.commands) == set(OPTIONS)
    for name, sub in group.commands.items():
        assert re.search(rf"^ +{name} +\S", done.out, re.MULTILINE)
        shown = command(name, "--help")
        assert shown.code == 0
        declared = {option for parameter in sub.params for option in parameter.opts if option.startswith("-")}
        for option in declared | set(OPTIONS[name].split()):
            assert re.search(rf"(^|[ ,]){option}\b", shown.out, re.MULTILINE), (name, option)
    assert command().code in (0, 2) and command("tune").code == 2


def test_imports_and_help_are_light() -> None:
    program = f"""
import sys
import multimodal, multimodal.cli.app
from multimodal import Settings
from multimodal.cli.app import main
for arguments in [["--help"], *([name, "--help"] for name in {list(OPTIONS)})]:
    sys.argv = ["multimodal-prompts", *arguments]
    try:
        main()
    except SystemExit as end:
        assert end.code == 0, end.code
print("loaded", *[name for name in {(*HEAVY, "numpy", "PIL", "sklearn", "torchvision")} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded"


def test_the_command_is_installed() -> None:
    command = Path(sys.executable).parent / "multimodal-prompts"
    done = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
    assert "classify" in done.stdout


def test_all_is_what_can_be_imported() -> None:
    namespace: dict[str, object] = {}
    exec("from multimodal import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(multimodal.__all__) == set(multimodal._HOMES)
    assert set(multimodal.__all__) <= set(dir(multimodal))
    assert sorted(multimodal.__all__) == multimodal.__all__
    with pytest.raises(AttributeError, match="module 'multimodal' has no attribute 'Promptclassifier'"):
        multimodal.Promptclassifier  # noqa: B018


def test_the_core_knows_nothing_of_images() -> None:
    for path in Path(retrieval_prompts.__path__[0]).glob("**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] == "multimodal"], path
        assert 'import_module("multimodal' not in path.read_text()
