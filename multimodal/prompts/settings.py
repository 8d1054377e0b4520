"""The settings of a prompt for CLIP, and the methods with the defaults of their papers. Knows no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from multimodal.data.templates import DEFAULT, fill
from multimodal.prompts.recipes import RECIPES, paper
from multimodal.towers.tokens import POSITIONS
from retrieval_prompts.prompts.settings import Values, setting

COMMON = {
    **{"context": 4, "weight": 1.0, "depth": 1, "visual": 4},
    **{"epochs": 50, "learning_rate": 2e-3, "batch_size": 32},
    **{"init": "a photo of a", "frame": "{}.", "average_at": 0.75, "average_width": 0.05},
    **{"optimizer": "adamw", "weight_decay": 0.0, "schedule": "steps", "warmup": 0.1, "clip_norm": 1.0},
    **{"augment": "views", "views": 1, "last_batch": "kept", "head": "auto"},
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
# Of queries, in a search; there are no classes
SEARCH: dict[str, dict[str, Any]] = {"feedback": {"epochs": 10, "learning_rate": 1e-2}}
AUTO = "auto"
QUICK = ("coop", "kgcoop", "prograd", "tcp")  # what `auto` tries: cached features serve, and one text pass a step
LABELLED = {"data": ("labelled pictures",)}  # captions have no classes
CLASSES = {"data": ("labelled pictures", "unlabelled pictures")}
OWN_TEXT = {"method": (*(name for name in METHODS if name != "promptkd"), AUTO)}  # its class texts are its teacher's
TAUGHT = {"method": ("promptkd",), **CLASSES}


@dataclass(frozen=True)
class PromptSettings(Values):
    """What a prompt for CLIP is. A class-specific context serves no other classes; maple has as many visual vectors as
    context vectors.

    The recipe "paper" is the published setting of the method, for what is not given; see `recipes.paper`. It does not
    know the data set, as `training.settings.on_data` does.
    """

    KIND: ClassVar[str] = "method"
    DEFAULTS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        name: {**COMMON, **own} for name, own in (METHODS | SEARCH).items()
    }

    method: str = setting(
        "coop",
        help=f"of prompt learning; auto: of {', '.join(QUICK)} the one that held-out shots take",
        choices=(*METHODS, *SEARCH, AUTO),
    )
    recipe: str = setting(
        "default", help="what is not given is as usual here, or as published", choices=RECIPES, read_by=LABELLED
    )
    context: int = setting(None, help="context vectors", low=1, read_by=OWN_TEXT)
    init: str = setting(
        None,
        help="where the context starts: words; zeros:WORDS, zeros before them; gaussian; gaussian:DEVIATION",
        read_by=OWN_TEXT,
    )
    frame: str = setting(
        None, help='what is written beside the context, such as "{}, a type of pet."', read_by={**OWN_TEXT, **LABELLED}
    )
    position: str = setting("end", help="of the class name in the prompt", choices=POSITIONS, read_by=OWN_TEXT)
    class_specific: bool = setting(
        False, help="each class its own context", read_by={"method": ("coop", "kgcoop", "prograd"), **LABELLED}
    )
    encoder: str = setting(
        "table", help="what makes the vectors", choices=("table", "mlp", "lstm"), read_by={"method": tuple(METHODS)}
    )
    feedback: int = setting(
        10,
        help="how many that a first search finds a query reads, beside itself",
        low=0,
        high=100,
        read_by={"method": tuple(SEARCH)},
    )
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
    average_at: float = setting(
        None,
        help="the prompts of all epochs are averaged around this share of them",
        low=0,
        high=1,
        read_by={"method": ("promptsrc",)},
    )
    average_width: float = setting(
        None, help="deviation of that average, as such a share", above=0, high=10, read_by={"method": ("promptsrc",)}
    )
    seed: int = setting(1, help="of the shots, the initial vectors and the batches", low=0, high=2**32 - 1)

    @property
    def slots(self) -> int:
        """Places among the words that vectors take."""
        return 0 if self.method == "mmrl" and self.recipe == "paper" else self.context

    def __post_init__(self) -> None:
        if self.recipe == "paper" and self.method in METHODS:
            names = {each.name for each in fields(self)}
            for name, value in paper(self.method, getattr(self, "shots", None)).items():
                if name in names and getattr(self, name) is None:
                    object.__setattr__(self, name, value)
        super().__post_init__()
        for each in (self.template, self.frame):
            fill(each, "class")  # raises where it has no place for a name
