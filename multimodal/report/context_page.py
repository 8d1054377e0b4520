"""An inspection of a CLIP context as a page: what is beyond untrained contexts, and the pictures that it changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from multimodal.experiments.context_inspection import ContextInspection, claims
from multimodal.report.sections import classification
from retrieval_prompts.experiments.inspection.claims import CHANCE, verdict
from retrieval_prompts.report.assemble import with_words
from retrieval_prompts.report.content import Block, Report, Section
from retrieval_prompts.report.inspection_page import left_out_block, vectors_block


def context_report(found: ContextInspection, name: str) -> Report:
    """The page of `experiments.context_inspection.inspect`."""
    made, shown = claims(found), found.shown
    section = Section(Path(name).name, "", "accuracy", {}, {}, [], {})
    if shown is not None:
        (section,) = classification(shown.result)
        tests = {key: test.as_dict() for key, test in shown.tests.items()}
        section = replace(section, tests=tests, baseline="zero-shot", system="tuned")
    rest = [claim.text for claim in made if not claim.beyond]
    blocks = [Block("What untrained contexts do as well", rest)] if rest else []
    blocks += [vectors_block(what, words) for what, words in found.words.items()]
    blocks += [left_out_block(shown.left_out, "the texts of classes", "accuracy")] if shown is not None else []
    sentences = [verdict(made), *(claim.text for claim in made if claim.beyond)]
    facts = [f"model {found.about['model']}", f"{found.about['method']}, {found.about['context']} context vectors"]
    section = replace(with_words(section, found.words), sentences=sentences, blocks=blocks)
    return Report(f"{Path(name).name}: what it says and does", [section], facts, [CHANCE, *found.notes])
