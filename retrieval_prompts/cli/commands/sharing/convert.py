"""retrieval-prompts convert."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from retrieval_prompts.cli import console
from retrieval_prompts.cli.options import AS_SAID, Device, Overwrite, Trust, with_conventions
from retrieval_prompts.errors import UserError
from retrieval_prompts.towers.conventions import Conventions


@with_conventions
def convert(
    source: Annotated[
        Path, typer.Argument(help="a PEFT adapter, a prompt folder, or a checkpoint that `export` has written")
    ],
    out: Annotated[Path, typer.Option(help="the folder to write; of a checkpoint the ONNX file")],
    model: Annotated[str | None, typer.Option(help="the base model  [default: as the source says]")] = None,
    conventions: Conventions = AS_SAID,
    side: Annotated[str | None, typer.Option(help="query or document  [default: query, or the only one]")] = None,
    device: Device = None,
    trust_remote_code: Trust = False,
    overwrite: Overwrite = False,
) -> None:
    """Convert a PEFT adapter to prompts, prompts to a PEFT adapter, or an exported checkpoint to ONNX.

    Adapters and prompts may be those of an encoder, or of a language model that writes queries (see `generator`).
    """
    from retrieval_prompts.files import ADAPTER, PROMPTS

    if _of_language_model(source):
        unread = {"--side": side is not None, "--trust-remote-code": trust_remote_code}
        if odd := [*conventions.options(), *(option for option, said in unread.items() if said)]:
            raise UserError(
                f"{', '.join(odd)}: {source} is for a language model that writes queries, and takes none of these"
            )
        _convert_writing(source, out, model, device, overwrite=overwrite)
        return
    if (source / "adapter_config.json").is_file():
        console.claim(out, overwrite=overwrite, holds=PROMPTS)
        from retrieval_prompts.interop.peft import read_adapter, read_config
        from retrieval_prompts.prompts.folder import save_prompts
        from retrieval_prompts.towers.text import load_tower

        given, model = model, model or read_config(source).get("base_model_name_or_path")
        if not model:
            raise UserError(f"{source} does not say which model it belongs to: pass --model")
        if trust_remote_code and not given:
            raise UserError("an adapter does not choose whose code runs: with --trust-remote-code pass --model too")
        tower = load_tower(str(model), device=device, trust_remote_code=trust_remote_code, conventions=conventions)
        prompts = read_adapter(source, tower, side or "query")
        save_prompts(out, prompts, overwrite=overwrite)
        console.say(f"{out}: {prompts.kind} prompts for the {side or 'query'} side of {tower.name}")
    elif (source / "modules.json").is_file():
        console.claim(out, overwrite=overwrite)
        if conventions != AS_SAID:
            raise UserError(f"{', '.join(conventions.options())}: {source} is a checkpoint, which has its own already")
        from retrieval_prompts.interop.onnx import export_onnx

        export_onnx(source, out, overwrite=overwrite)
        console.say(
            f"{out}: input_ids and attention_mask -> sentence_embedding, compared with {source} on sample texts"
        )
    else:
        console.claim(out, overwrite=overwrite, holds=ADAPTER)
        from retrieval_prompts.biencoder import BiEncoder
        from retrieval_prompts.interop.peft import write_adapter
        from retrieval_prompts.interop.sharing.hub import located
        from retrieval_prompts.prompts.feedback import check_constant
        from retrieval_prompts.prompts.folder import read_description

        about = read_description(located(source))
        check_constant("a PEFT adapter", feedback="feedback" in about, mixture="mixture" in about)
        biencoder = BiEncoder.load(
            model, source, device=device, trust_remote_code=trust_remote_code, **asdict(conventions)
        )
        write_adapter(biencoder, out, side, overwrite=overwrite)
        console.say(f"{out}: a PEFT adapter")
        console.say(
            f'next: peft.PeftModel.from_pretrained(AutoModel.from_pretrained("{biencoder.tower.name}"), "{out}")'
        )


def _of_language_model(source: Path) -> bool:
    """Whether an adapter, or a prompt folder, is for a model that writes."""
    from retrieval_prompts.files import read_json

    for file, field, wanted in (
        ("adapter_config.json", "task_type", ("CAUSAL_LM", "SEQ_2_SEQ_LM")),
        ("prompt.json", "for", ("writing",)),
    ):
        if (source / file).is_file():
            about = read_json(source / file)
            return isinstance(about, dict) and about.get(field) in wanted
    return False


def _convert_writing(source: Path, out: Path, model: str | None, device: str | None, *, overwrite: bool) -> None:
    """A prompt of a language model from PEFT, or to PEFT."""
    from retrieval_prompts.files import ADAPTER, PROMPTS
    from retrieval_prompts.interop.peft import read_config
    from retrieval_prompts.interop.peft_writing import read_writing_adapter, write_writing_adapter
    from retrieval_prompts.prompts.writing_folder import load_writing
    from retrieval_prompts.towers.language import LanguageModel

    adapter = (source / "adapter_config.json").is_file()
    console.claim(out, overwrite=overwrite, holds=PROMPTS if adapter else ADAPTER)
    if adapter:
        name = model or read_config(source, language=True).get("base_model_name_or_path")
        if not name:
            raise UserError(f"{source} does not say which model it belongs to: pass --model")
        language = LanguageModel(str(name), device, option="--model")
        read_writing_adapter(source, language).save(out, overwrite=overwrite)
        console.say(f"{out}: a prompt for {language.name}, to be used by --generator-prompt")
    else:
        prompt = load_writing(source)
        language = LanguageModel(model or str(prompt.base["name"]), device, option="--model")
        write_writing_adapter(prompt, language, out, overwrite=overwrite)
        console.say(f"{out}: a PEFT adapter of prompt tuning for {language.name}")
