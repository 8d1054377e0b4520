"""The settings of a prompt for CLIP, and the methods with the defaults of their papers. Knows no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from multimodal.data.templates import DEFAULT, fill
from multimodal.towers.tokens import POSITIONS
from retrieval_prompts.prompts.settings import Values, setting

COMMON = {
    **{"context": 4, "weight": 1.0, "depth": 1, "visual": 4},
    **{"epochs": 50, "learning_rate": 2e-3, "batch_size": 32},
}  # of all methods, but for what each has of its own
METHODS: dict[str, dict[str, Any]] = {
    "coop": {},
    "cocoop": {"epochs": 10},
    "kgcoop": {"weight": 8.0, "epochs": 100, "batch_size": 128},
    "prograd": {},
    "tcp": {"weight": 8.0},
    "deep": {"depth": 12, "epochs": 20},
    "vpt": {"visual": 8, "depth": 12, "epochs": 5, "learning_rate": 2.5e-3, "batch_size": 4},
    "maple": {"context": 2, "visual": 2, "depth": 9, "epochs": 5, "learning_rate": 3.5e-3, "batch_size": 4},
    "mmrl": {"depth": 7, "epochs": 10, "learning_rate": 1e-3, "batch_size": 4},
    "promptkd": {"depth": 9, "epochs": 20, "learning_rate": 5e-4, "batch_size": 8},
    "promptsrc": {"depth": 9, "epochs": 20, "learning_rate": 2.5e-3, "batch_size": 4},
}
LABELLED = {"data": ("labelled pictures",)}  # captions have no classes
CLASSES = {"data": ("labelled pictures", "unlabelled pictures")}
OWN_TEXT = {"method": tuple(name for name in METHODS if name != "promptkd")}  # its class texts are its teacher's
TAUGHT = {"method": ("promptkd",), **CLASSES}


@dataclass(frozen=True)
class PromptSettings(Values):
    """What a prompt for CLIP is. A class-specific context serves no other classes; maple has as many visual vectors as
    context vectors."""

    KIND: ClassVar[str] = "method"
    DEFAULTS: ClassVar[Mapping[str, Mapping[str, Any]]] = {name: {**COMMON, **own} for name, own in METHODS.items()}

    method: str = setting("coop", help="of prompt learning", choices=tuple(METHODS))
    context: int = setting(None, help="context vectors", low=1, read_by=OWN_TEXT)
    init: str = setting("a photo of a", help="where the context starts: words, or gaussian", read_by=OWN_TEXT)
    position: str = setting("end", help="of the class name in the prompt", choices=POSITIONS, read_by=OWN_TEXT)
    class_specific: bool = setting(
        False, help="each class its own context", read_by={"method": ("coop", "kgcoop", "prograd"), **LABELLED}
    )
    encoder: str = setting("table", help="what makes the vectors", choices=("table", "mlp", "lstm"))
    template: str = setting(
        DEFAULT, help="of the frozen class texts, and of zero-shot", shown="the data set's", read_by=CLASSES
    )
    weight: float = setting(
        None,
        help="of the method's own regulariser",
        low=0,
        high=1e6,
        read_by={"method": ("kgcoop", "prograd", "tcp", "mmrl", "promptsrc")},
    )
    depth: int = setting(
        None,
        help="layers with prompts, at most the tower's: the first, of mmrl the last",
        low=1,
        read_by={"method": ("deep", "vpt", "maple", "mmrl", "promptkd", "promptsrc")},
    )
    own: float = setting(
        0.7,
        help="share of the class token beside the representation tokens",
        low=0,
        high=1,
        option="--class-share",
        read_by={"method": ("mmrl",)},
    )
    visual: int = setting(
        None, help="vectors in the image tower", low=1, read_by={"method": ("vpt", "promptkd", "promptsrc")}
    )
    teacher: str | None = setting(None, help="the larger CLIP that is learned from, as --model", read_by=TAUGHT)
    teacher_pretrained: str | None = setting(None, help="with an open_clip name of it, as --pretrained", read_by=TAUGHT)
    kd_temperature: float = setting(
        1.0, help="at which teacher and student are compared", above=0, high=1e3, read_by=TAUGHT
    )
    seed: int = setting(1, help="of the shots, the initial vectors and the batches", low=0, high=2**32 - 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        fill(self.template, "class")  # raises where the template has no place for a name
