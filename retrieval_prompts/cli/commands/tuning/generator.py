"""retrieval-prompts generator."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from retrieval_prompts.cli import console
from retrieval_prompts.cli.options import Device, JsonFile, Overwrite, with_settings
from retrieval_prompts.cli.progress import Progress
from retrieval_prompts.training.tasks.settings import WritingSettings


@with_settings(WritingSettings, "length", "init", "max_steps", "learning_rate", "batch_size", "seed")
def generator(
    data: Annotated[Path, typer.Argument(help="BEIR folder with judged training queries; a few dozen are enough")],
    out: Annotated[Path, typer.Option(help="the folder to write")],
    model: Annotated[
        str, typer.Option("--generator", help="a causal or sequence-to-sequence language model; it stays frozen")
    ],
    given: dict[str, Any],
    pairs: Annotated[int, typer.Option(min=10, help="documents with their queries to learn from, at most")] = 50,
    json_file: JsonFile = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Train a soft prompt under which a language model writes queries like those of DATA, for `tune --pairs generated`.

    Examples:

      retrieval-prompts generator DATA --generator MODEL --out WRITER

      retrieval-prompts tune DATA --pairs generated --generator MODEL --generator-prompt WRITER --out PROMPTS
    """
    from retrieval_prompts.files import PROMPTS

    console.check_outputs(json_file, overwrite=overwrite)
    console.claim(out, overwrite=overwrite, holds=PROMPTS)
    from retrieval_prompts.data.beir_folder import load
    from retrieval_prompts.experiments.pairs.generated import judged_pairs, write_queries_like
    from retrieval_prompts.towers.language import LanguageModel

    say = console.printer(json_file)
    settings = WritingSettings.of(**given)
    dataset = load(data)
    found = judged_pairs(dataset, pairs)[:pairs]
    language = LanguageModel(model, device)
    task, training = write_queries_like(language, found, settings)
    say(f"{dataset.name}: {len(task.train_pairs)} documents with their queries to learn from, {len(task.dev)} held out")
    with Progress("log-likelihood") as on_step:
        for step in training:
            on_step(step, training.total)
    prompt = task.found()
    prompt.save(out, overwrite=overwrite)
    losses = prompt.training["dev_loss"]
    if json_file is not None:
        console.write_result(json_file, {**prompt.training, "model": language.name})
    say(f"loss a token of held-out queries: {losses['frozen']:.3f} without the prompt, {losses['prompt']:.3f} with it")
    if losses["prompt"] >= losses["frozen"]:
        say("this prompt does not help: train it longer (--max-steps), or do without it")
        return
    options = f"--generator {shlex.quote(model)} --generator-prompt {shlex.quote(str(out))}"
    say(f"next:\n  retrieval-prompts tune {shlex.quote(str(data))} --pairs generated {options} --out PROMPTS")
