"""What the command line lists, and what it costs to start."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import typer
from command_line import Command

from retrieval_prompts.cli import app as cli

OPTIONS = {
    "tune": (
        "--out --model --side --kind --encoder --length --init --epochs --lr --batch-size --temperature --negatives "
        "--seed --json --overwrite"
    ),
    "corpus": "--out --queries --judgements --id --title --text --columns --chunk --overlap --duplicates --test --dev",
    "adopt": "--texts --out --ids --id-field --vector-field --sample --factory --bm25 --overwrite",
    "evaluate": "--model --prompts --split --json --run --overwrite",
    "beir": "--datasets --data-dir --out --baselines --report --overwrite",
    "compare": "--qrels --datasets --metric --correction --json --report",
    "index": "--out --model --prompts --bm25 --compare --overwrite",
    "search": "--prompts --top-k -k --bm25-weight --json",
    "serve": "--prompts --prompts-root --host --port --token-file --allow-host --queue --timeout",
    "inspect": "--data --split --html --json --overwrite",
    "merge": "--out --overwrite",
    "list": "--json",
    "diff": "--json",
    "export": "--out --overwrite",
    "convert": "--out --side --overwrite",
    "push": "--private --revision",
    "pull": "--out --overwrite",
    "verify": "--json --overwrite",
    "classify": "--out --prompts --labels --test --text --label --name --shots --head --model --max-steps --lr --json",
    "generator": "--out --generator --pairs --length --max-steps --lr --json --overwrite",
}


def test_help_lists_every_command_and_option(command: Command) -> None:
    done = command("--help")
    assert done.code == 0
    group: Any = typer.main.get_command(cli.app)
    assert set(group.commands) == set(OPTIONS)
    for name, sub in group.commands.items():
        assert re.search(rf"^ +{name} +\S", done.out, re.MULTILINE)
        text = command(name, "--help").out
        declared = {option for parameter in sub.params for option in parameter.opts if option.startswith("-")}
        for option in declared | set(OPTIONS[name].split()):
            assert re.search(rf"(^|[ ,]){option}\b", text, re.MULTILINE), (name, option)


def test_without_a_command_there_is_help(command: Command) -> None:
    done = command()
    assert done.code in (0, 2)
    assert "tune" in done.out + done.err
    assert command("tune").code == 2


def test_the_command_line_starts_without_heavy_libraries() -> None:
    code = (
        "import sys\n"
        "sys.argv = ['retrieval-prompts', '--help']\n"
        "from retrieval_prompts.cli.app import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        "    print({'torch', 'transformers', 'faiss', 'numpy', 'scipy', 'bm25s'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
