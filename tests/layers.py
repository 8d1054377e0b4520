"""The rules of the house, read from the source: floors, circles, wrapped libraries, sizes, out-parameters.

Each rule takes the sources (module name -> `Module`) and returns what breaks it, a line each. Nothing is imported, so
imports inside functions and those for types alone count as much as any other.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

FLOORS: dict[str, int] = {
    "errors": 0,
    "files": 0,
    "data": 1,
    "prompts": 2,
    "towers": 2,
    "vectors": 3,
    "evaluation": 4,
    "heads": 4,
    "biencoder": 5,
    "classifier": 5,
    "estimator": 5,
    "training": 6,
    "experiments": 7,
    "interop": 8,
    "serving": 8,
    "report": 9,
    "cli": 10,
}
TOP = 11  # a package's own __init__, which offers names of every floor
# Library -> the modules, or floors (with a dot at the end), that wrap it
WRAPPED = {
    "faiss": ("retrieval_prompts.vectors.",),
    "open_clip": ("multimodal.towers.",),
    "bm25s": ("retrieval_prompts.evaluation.bm25",),
    "typer": ("retrieval_prompts.cli.", "multimodal.cli."),
    "ir_datasets": ("retrieval_prompts.data.sources.named_sets",),
    "ray": ("retrieval_prompts.interop.scale.pool",),
    "starlette": ("retrieval_prompts.serving.",),
    "uvicorn": ("retrieval_prompts.serving.",),
    "prometheus_client": ("retrieval_prompts.serving.",),
}
ENTRIES, LINES, FUNCTION, PARAMETERS = 14, 400, 60, 8
PACKAGES = ("retrieval_prompts", "multimodal")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One source file. `name`: dotted, that of the folder for an __init__."""

    name: str
    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def floor(self) -> int:
        package, _, rest = self.name.partition(".")
        return FLOORS[rest.split(".")[0]] if rest else TOP

    def functions(self) -> Iterator[Function]:
        return (node for node in ast.walk(self.tree) if isinstance(node, Function))


def sources(root: Path) -> dict[str, Module]:
    """Every module of both packages below `root`."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = Module(name, path)
    return found


def imports(module: Module, modules: Mapping[str, Module]) -> set[str]:
    """The modules of both packages that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names if name.name in modules}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            inner = {f"{node.module}.{name.name}" for name in node.names}
            found |= inner & modules.keys() or {node.module} & modules.keys()
    return found - {module.name}


def upward(modules: Mapping[str, Module], allowed: Iterable[tuple[str, str]] = ()) -> list[str]:
    """Imports that run upwards, and those of multimodal in retrieval_prompts."""
    broken = []
    for name, module in modules.items():
        for target in sorted(imports(module, modules)):
            across = name.startswith("retrieval_prompts") and target.startswith("multimodal")
            if (across or modules[target].floor > module.floor) and (name, target) not in set(allowed):
                broken.append(f"{name} (floor {module.floor}) imports {target} (floor {modules[target].floor})")
    return broken


def circles(modules: Mapping[str, Module], allowed: Iterable[tuple[str, str]] = ()) -> list[str]:
    """A circle of imports, if there is one."""
    apart = set(allowed)
    graph = {
        name: {target for target in imports(module, modules) if (name, target) not in apart}
        for name, module in modules.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [" <- ".join(error.args[1])]
    return []


def strangers(modules: Mapping[str, Module]) -> list[str]:
    """Imports of a wrapped library anywhere but where it is wrapped."""
    broken = []
    for name, module in modules.items():
        for node in ast.walk(module.tree):
            names = [part.name for part in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for library in {each.split(".")[0] for each in names} & WRAPPED.keys():
                if not f"{name}.".startswith(tuple(f"{home.rstrip('.')}." for home in WRAPPED[library])):
                    broken.append(f"{name} imports {library}")
    return broken


def too_large(modules: Mapping[str, Module]) -> list[str]:
    """Folders, files, functions (the lines of their bodies) and lists of parameters beyond the limits."""
    broken = []
    folders: dict[Path, set[str]] = {}
    for module in modules.values():
        if (count := len(module.text.splitlines())) > LINES:
            broken.append(f"{module.name}: {count} lines")
        if module.path.stem != "__init__":
            folders.setdefault(module.path.parent, set()).add(module.path.name)
        else:
            folders.setdefault(module.path.parent.parent, set()).add(module.path.parent.name)
        for function in module.functions():
            if (length := _length(function)) > FUNCTION:
                broken.append(f"{module.name}.{function.name}: {length} lines")
            given = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
            taken = [each.arg for each in given if each.arg not in ("self", "cls", "ctx")]
            if len(taken) > PARAMETERS and ".cli." not in module.name:
                broken.append(f"{module.name}.{function.name}: {len(taken)} parameters")
    return broken + [f"{path}: {len(names)} entries" for path, names in folders.items() if len(names) > ENTRIES]


def namesakes(modules: Mapping[str, Module]) -> set[str]:
    """Base names that more than one module has; commands are named after what they run."""
    names = [name.rsplit(".", 1)[-1] for name in modules if ".cli." not in name and name not in PACKAGES]
    folders = {name for name in names if name in FLOORS}
    return {name for name in names if names.count(name) > 1} - folders


def out_parameters(modules: Mapping[str, Module]) -> list[str]:
    """Functions that fill a list which was given to them, where they should return it."""
    broken = []
    for module in modules.values():
        for function in module.functions():
            given = {
                each.arg
                for each in (*function.args.args, *function.args.kwonlyargs)
                if each.annotation is not None and ast.unparse(each.annotation).startswith("list[")
            }
            for node in ast.walk(function):
                name = None
                if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
                    name = node.target.id
                elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    value = node.func.value
                    adds = node.func.attr in ("append", "extend", "insert")
                    name = value.id if adds and isinstance(value, ast.Name) else None
                if name in given:
                    broken.append(f"{module.name}.{function.name} fills its parameter {name}")
    return broken


def levels(modules: Mapping[str, Module]) -> list[str]:
    """Comparisons with a significance level that is written out."""
    return [
        f"{module.name}, line {node.lineno}: {ast.unparse(node)}"
        for module in modules.values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Compare)
        for side in (node.left, *node.comparators)
        if isinstance(side, ast.Constant) and side.value == 0.05
    ]


def _length(function: Function) -> int:
    """Lines of the body, without the docstring."""
    first, *rest = function.body
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        first = rest[0] if rest else first
    return (function.end_lineno or 0) - first.lineno + 1
