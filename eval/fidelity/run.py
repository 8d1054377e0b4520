"""What each method computes beside what its authors' code computes, on the same tensors and random weights.

    git clone https://github.com/KaiyangZhou/CoOp REPOSITORIES/CoOp      # and the others; what is missing is said
    python -m eval.fidelity.run --repositories REPOSITORIES --json eval/results/fidelity.json

A prompt method: the loss of a batch, the gradient of every parameter, and how far each has moved after three epochs.
A head: its logits once it is fitted, or as far as both sides go alike. Their code runs as it is, on the CPU and in
double precision, with stand-ins for what it asks of data sets and files. Differences up to 1e-5 are none.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from eval.fidelity import adapted, compare, heads, methods
from eval.fidelity.authors import Repository, double
from eval.fidelity.compare import Row
from retrieval_prompts.errors import UserError
from retrieval_prompts.experiments.records import result_file
from retrieval_prompts.experiments.records.result_file import made_on, resume

OWNERS = {
    "CoOp": "KaiyangZhou",
    "KgCoOp": "htyao89",
    "Prompt-align": "BeierZhu",
    "Textual-based_Class-aware_prompt_tuning": "htyao89",
    "multimodal-prompt-learning": "muzairkhattak",
    "PromptSRC": "muzairkhattak",
    "MMRL": "yunncheng",
    "PromptKD": "zhengli97",
    "rethinking_fewshot_vlms": "FarinaMatteo",
    "FewShot-CLIP-Strong-Baseline": "FereshteShakeri",
    "CLAP": "jusiro",
    "Tip-Adapter": "gaopengcuhk",
    "ICLR24": "mrflogs",
    "CLIP-LoRA": "MaxZanella",
}
INSIDE = {"KgCoOp": "KgCoOp", "Prompt-align": "ProGrad.public"}
DASSL = "Dassl.ProGrad.pytorch"  # of those two; others use Dassl itself, of which PromptKD's repository has a copy
Rows = dict[str, Callable[[Callable[[str], Repository]], Row]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repositories", type=Path, required=True, help="a folder of clones, each by its own name")
    parser.add_argument("--only", default="", help="methods and heads, such as coop,gda; else all")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    try:
        sys.exit(run(options))
    except UserError as error:
        sys.exit(f"error: {error}")


def run(options: argparse.Namespace) -> int:
    """1 where something differs without a word why, else 0."""
    every: Rows = {**methods.ROWS, **heads.ROWS, **adapted.ROWS}
    wanted = [name for name in options.only.split(",") if name] or list(every)
    if unknown := [name for name in wanted if name not in every]:
        raise UserError(f"--only: there is no {', '.join(unknown)}; there are {', '.join(every)}")
    result = resume(options.json, {"equal": compare.EQUAL}, {"rows": {}}, False)
    result |= made_on(("torch", "open-clip-torch", "scipy", "scikit-learn"))
    for name in wanted:
        with double():
            row = every[name](lambda of: clone(options.repositories, of))
        result["rows"][name] = row.as_json
        result["rows"] = {each: result["rows"][each] for each in every if each in result["rows"]}
        result_file.write(options.json, result)
        print(compare.table([row.as_json]).splitlines()[-1], flush=True)
    print(compare.table(result["rows"].values()))
    odd = [name for name, row in result["rows"].items() if not row["equal"] and not row["why"]]
    if odd:
        print(f"different without a word why: {', '.join(odd)}", file=sys.stderr)
    return int(bool(odd))


def clone(folder: Path, name: str) -> Repository:
    """Raises UserError where it, or the Dassl that it uses, is not there."""
    dassl = Path(name, DASSL) if name in INSIDE else Path("PromptKD", "Dassl.pytorch")
    for each in (name, dassl.parts[0]):
        if not (folder / each).is_dir():
            address = f"https://github.com/{OWNERS[each]}/{each}"
            raise UserError(f"expected a clone at {folder / each}; git clone {address} {folder / each}")
    return Repository(f"{OWNERS[name]}/{name}", folder / name, INSIDE.get(name, "."), folder / dassl)


if __name__ == "__main__":
    main()
