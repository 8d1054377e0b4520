"""Authors' repositories, as they are, on the CPU: their modules, their Dassl, their configurations.

What their code asks for and is not here gets a stand-in in memory: the data sets, the evaluators, the file of weights.
Nothing of theirs is changed or copied. Casts to half precision and moves to a GPU do nothing meanwhile.

All is computed in double precision, by ours as well, so that what differs is not rounding.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import packaging.version
import torch
import yaml
from torch import Tensor, nn

from retrieval_prompts.errors import UserError

# Names that several repositories have of their own, and that are taken out again
OWN = {"clip", "trainers", "datasets", "utils", "dassl", "yacs", "fs", "loralib", "methods", "main"}
OWN |= {"main_few_shots", "lora"}
HIDDEN = (
    *("torch.utils.tensorboard", "dassl.data", "dassl.utils", "dassl.modeling", "dassl.evaluation", "dassl.metrics"),
    *(
        "dassl.data.datasets",
        "dassl.data.transforms",
        "gdown",
        "tabulate",
        "pkg_resources",
        "matplotlib",
        "matplotlib.pyplot",
    ),
)
DATASETS = ("datasets", "datasets.utils", "datasets.imagenet", "datasets.imagenet_templates")


class Config(dict[str, Any]):
    """Names and values as attributes: what the configurations need of yacs."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[name]

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def merge(self, more: Mapping[str, Any]) -> Config:
        for name, value in more.items():
            if isinstance(value, Mapping):
                self.setdefault(name, Config()).merge(value)
            else:
                self[name] = _number(value)
        return self


class StandIn(ModuleType):
    """A module that has whatever is asked of it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return mock.MagicMock(name=name)


class Repository:
    """A clone, opened: its modules can be imported while the context lasts.

    Args:
        name: "owner/name".
        folder: of the clone.
        inside: where its Python packages are in it.
        dassl: the folder that holds the package dassl that it uses.
    """

    def __init__(self, name: str, folder: Path, inside: str, dassl: Path) -> None:
        self.name, self.folder, self.root, self.dassl = name, folder, folder / inside, dassl

    def module(self, name: str) -> Any:
        found = importlib.import_module(name)
        for each in [*sys.modules.values()]:
            if not _is_own(getattr(each, "__name__", "")):
                continue
            if "_download" in vars(each):
                vars(each)["_download"] = _itself  # the address; `weights` has what is there
            norm: Any = vars(each).get("LayerNorm")
            if isinstance(norm, type) and issubclass(norm, nn.LayerNorm) and norm is not nn.LayerNorm:
                norm.forward = nn.LayerNorm.forward  # type: ignore[method-assign] # theirs computes in single precision
        return found

    def config(self, trainer: str | None = None, **given: Mapping[str, Any]) -> Config:
        """Dassl's defaults, what the repository's train.py adds, one of its trainers' files, and what is given."""
        config: Config = self.module("dassl.config.defaults")._C
        extend = next(
            node
            for node in ast.parse((self.root / "train.py").read_text()).body
            if isinstance(node, ast.FunctionDef) and node.name == "extend_cfg"
        )
        scope: dict[str, Any] = {"CN": Config}
        exec(compile(ast.Module([extend], []), "extend_cfg", "exec"), scope)
        scope["extend_cfg"](config)
        if trainer is not None:
            config.merge(yaml.safe_load((self.root / "configs" / "trainers" / f"{trainer}.yaml").read_text()))
        return config.merge(given)

    @contextlib.contextmanager
    def opened(self, weights: Callable[[str], dict[str, Tensor]]) -> Iterator[Repository]:
        """`weights`: what is read wherever a file of weights is: path -> state dict."""
        before = {name: module for name, module in sys.modules.items() if _is_own(name) or name in HIDDEN}
        for name in before:
            del sys.modules[name]
        sys.modules.update(self._stand_ins())
        sys.path.insert(0, str(self.root))
        try:
            with (
                mock.patch.multiple(Tensor, cuda=_itself, half=_itself),
                mock.patch.multiple(nn.Module, cuda=_itself, half=_itself),
                mock.patch.object(torch, "load", lambda path, **_: weights(str(path))),
                mock.patch.object(torch, "float16", torch.float64),
                mock.patch.object(torch.amp, "autocast", lambda *_, **__: contextlib.nullcontext()),
                mock.patch.object(torch.jit, "load", mock.Mock(side_effect=RuntimeError)),
                mock.patch.object(torch.optim.lr_scheduler, "_LRScheduler", _Scheduler),
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                yield self
        finally:
            sys.path.remove(str(self.root))
            for name in [name for name in sys.modules if _is_own(name) or name in HIDDEN]:
                del sys.modules[name]
            sys.modules.update(before)

    def _stand_ins(self) -> dict[str, ModuleType]:
        found: dict[str, ModuleType] = {name: StandIn(name) for name in (*HIDDEN, *DATASETS)}
        found["pkg_resources"].packaging = packaging  # type: ignore[attr-defined]
        yacs, yacs_config = ModuleType("yacs"), ModuleType("yacs.config")
        yacs_config.CfgNode = Config  # type: ignore[attr-defined]
        found |= {"yacs": yacs, "yacs.config": yacs_config}
        found["dassl.utils"].load_checkpoint = lambda _: {"state_dict": {}}  # type: ignore[attr-defined]
        found["dassl.metrics"].compute_accuracy = lambda *_: [torch.zeros(())]  # type: ignore[attr-defined]
        for name in ("dassl", "dassl.config", "dassl.engine"):  # the packages without what their __init__ imports
            found[name] = ModuleType(name)
            found[name].__path__ = [str(self.dassl.joinpath(*name.split(".")))]
        found["dassl.engine"].TRAINER_REGISTRY = _Registry()  # type: ignore[attr-defined]
        found["dassl.engine"].__getattr__ = lambda name: getattr(  # type: ignore[method-assign]
            importlib.import_module("dassl.engine.trainer"), name
        )
        return found

    @property
    def commit(self) -> str:
        found = subprocess.run(["git", "-C", self.folder, "rev-parse", "HEAD"], capture_output=True, text=True)
        if found.returncode:
            raise UserError(f"{self.folder} is no git clone, so which version it has cannot be said; clone it again")
        return found.stdout.strip()


@contextlib.contextmanager
def double() -> Iterator[None]:
    """What is asked to be float32, by us or by them, is float64 meanwhile."""
    torch.set_default_dtype(torch.float64)
    try:
        with mock.patch.object(Tensor, "float", Tensor.double), mock.patch.object(nn.Module, "float", nn.Module.double):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


class _Registry:
    def register(self) -> Callable[[type], type]:
        return lambda kind: kind


class _Scheduler(torch.optim.lr_scheduler.LRScheduler):
    """Older versions of torch told of each step, if asked."""

    def __init__(self, optimizer: torch.optim.Optimizer, last_epoch: int = -1, verbose: bool = False) -> None:
        super().__init__(optimizer, last_epoch)


def _itself(self: Any, *_: Any, **__: Any) -> Any:
    return self


def _is_own(name: str) -> bool:
    return name.split(".")[0] in OWN


def _number(value: Any) -> Any:
    """As yacs reads it: YAML takes 1e-5 for a word."""
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
