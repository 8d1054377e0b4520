"""What our command lines share: one-line errors and warnings, where people's and machines' output goes."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from retrieval_prompts.errors import UNSHOWN, UserError, first_line, out_of_memory, shown, without_passwords
from retrieval_prompts.experiments.records.provenance import COMMAND, typed

if TYPE_CHECKING:
    from retrieval_prompts.files import Kind

ENDED: dict[Any, str] = {130: "interrupted", 143: "terminated"}
Held = TypeVar("Held", bound=AbstractContextManager[Any])
_held: list[ExitStack] = []  # the outputs that the command holds which runs


def run(app: Callable[[], Any]) -> None:
    """Run a command line; a user's mistake is one line on standard error and status 2, Ctrl-C 130, SIGTERM 143."""
    before = None
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGTERM, _terminate)
    _held.append(ExitStack())
    command = COMMAND.set(typed([*program(sys.argv[0]), *sys.argv[1:]]))
    try:
        _held[-1].enter_context(_alone())
        _quiet()
        app()
    except (UserError, OSError) as error:  # a full disk, a file that may not be read
        _last(f"error: {one_line(error)}")
        sys.exit(2)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        _last(
            f"error: there is not enough memory ({one_line(first_line(error))}); free some of it, or use --device cpu"
        )
        sys.exit(2)
    except (SystemExit, KeyboardInterrupt) as end:
        code = 130 if isinstance(end, KeyboardInterrupt) else end.code
        if code in ENDED:  # 130 is typer's status for Ctrl-C too
            _last(f"{ENDED[code]}; the same command goes on from where it was")
            sys.exit(code)
        raise
    finally:
        _held.pop().close()
        COMMAND.reset(command)
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def program(called: str) -> list[str]:
    """How a command line was started: by its name, or as a module, as launchers of several processes do.

    >>> program("/usr/bin/retrieval-prompts"), program("/lib/retrieval_prompts/cli/app.py")
    (['retrieval-prompts'], ['python', '-m', 'retrieval_prompts.cli.app'])
    """
    path = Path(called)
    if path.name != "app.py":
        return [path.name]
    return ["python", "-m", ".".join(path.with_suffix("").parts[-3:])]


@contextmanager
def _alone() -> Iterator[None]:
    """Of several processes that were launched for a command, the first one alone prints."""
    from retrieval_prompts.training.processes.place import Place

    if Place.here().first:
        yield
        return
    with open(os.devnull, "w") as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
        yield


def _last(line: str) -> None:
    """The last line on standard error: below progress bars, which end with it."""
    if "tqdm" in sys.modules:
        for bar in list(sys.modules["tqdm"].tqdm._instances):
            bar.close()
    print(line, file=sys.stderr)


def _terminate(*_: object) -> None:
    """Ends a command as Ctrl-C does, so that what it was writing is cleared away."""
    sys.exit(143)


def end_at_once() -> None:
    """Have signals end this process where it waits for another one, for it has nothing to clear away."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)


def say(text: str) -> None:
    """Print for people on standard output; what could be taken for a terminal's commands is shown, not sent."""
    print(shown(text))


def warn(message: object) -> None:
    """One line on standard error, above a progress bar where there is one."""
    line = f"warning: {one_line(message)}"
    if "tqdm" in sys.modules:
        sys.modules["tqdm"].tqdm.write(line, file=sys.stderr)
    else:
        print(line, file=sys.stderr)


def printer(json_file: Path | None) -> Callable[[Any], None]:
    """Print for people on standard output, or on standard error when the JSON goes there."""
    stream = sys.stderr if str(json_file) == "-" else sys.stdout
    return lambda text: _print(text, stream)


def check_outputs(json_file: Path | None, *files: Path | None, overwrite: bool) -> None:
    """Hold result files, and refuse those that exist, unless `overwrite`; "-" is standard output. Raises UserError."""
    lock(json_file, *files)
    for path in (json_file, *files):
        if path is not None and str(path) != "-":
            claim(path, overwrite=overwrite)


def lock(*files: Path | None) -> None:
    """Keep other runs from files or folders until the command ends.

    Raises:
        UserError: where one writes them already.
    """
    from retrieval_prompts.files import check_place, locked

    for path in files:
        if path is not None and str(path) != "-":
            check_place(path)
            hold(locked(path))


@contextmanager
def together(*outputs: Path | None) -> Iterator[None]:
    """Several outputs are written while the block runs. Where it does not come to its end, a hidden file beside the
    first says so, and the same command makes all of them anew; see `cut_short`."""
    from retrieval_prompts.files import write_json

    named = _named(outputs)
    if len(named) > 1:
        write_json(_unfinished(named), named)
    yield
    if len(named) > 1:
        _unfinished(named).unlink(missing_ok=True)


def cut_short(*outputs: Path | None) -> bool:
    """Whether a run that was to write these very outputs ended between them, so that they may be replaced."""
    from retrieval_prompts.files import read_json, sweep

    named = _named(outputs)
    if len(named) < 2:
        return False
    mark = _unfinished(named)
    sweep(mark.parent, mark.name)
    try:
        return bool(read_json(mark) == named)
    except (UserError, OSError):
        return False


def _named(outputs: tuple[Path | None, ...]) -> list[str]:
    return [os.path.abspath(path) for path in outputs if path is not None and str(path) != "-"]


def _unfinished(named: list[str]) -> Path:
    first = Path(named[0])
    return first.with_name(f".{first.name}.unfinished")


def missing(json_file: Path | None, *files: Path | None) -> list[Path]:
    """The result files that were asked for and are not there."""
    return [path for path in (json_file, *files) if path is not None and str(path) != "-" and not path.exists()]


def hold(what: Held) -> Held:
    """Enter a context that ends with the command; returns what was given. Of a function that is called as one, in no
    command line, nobody knows the end: then it ends at once."""
    if _held:
        _held[-1].enter_context(what)
    else:
        with what:
            pass
    return what


def claim(path: Path, *, overwrite: bool, holds: Kind | None = None) -> None:
    """Hold an output until the command ends; see `files.output`. Raises UserError."""
    from retrieval_prompts.files import output

    hold(output(path, overwrite=overwrite, holds=holds))


def write_result(path: Path, value: Any) -> None:
    """Write JSON to a file, atomically, or to standard output for "-"."""
    from retrieval_prompts.files import write_json

    if str(path) == "-":
        text = json.dumps(value, indent=2, ensure_ascii=False)
        print(UNSHOWN.sub(lambda match: f"\\u{ord(match[0]):04x}", text))
    else:
        write_json(path, value)


def _quiet() -> None:
    """One-line warnings, each once, and none of the libraries' progress chatter."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # of Milvus Lite

    said: set[str] = set()  # a file that is read twice is as odd the second time

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        line = one_line(message)
        if issubclass(category, UserWarning) and line not in said:
            said.add(line)
            warn(message)

    warnings.showwarning = show


def one_line(message: object) -> str:
    return shown(" ".join(without_passwords(str(message)).split()))


def _print(text: Any, file: TextIO) -> None:
    if isinstance(text, str):
        print(shown(text), file=file)
    else:
        from rich.console import Console

        Console(file=file).print(text)
