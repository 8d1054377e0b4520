"""What both command lines know of serving: the options, the token, and how a server is started."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from retrieval_prompts.cli import console
from retrieval_prompts.cli.options import replaced
from retrieval_prompts.errors import UserError

if TYPE_CHECKING:
    from retrieval_prompts.serving.application import Application

TOKEN = "RETRIEVAL_PROMPTS_TOKEN"  # the environment variable, not the token
ACCESS = "Who may ask, and how much"


def _access(help: str, **more: Any) -> Any:
    return typer.Option(help=help, rich_help_panel=ACCESS, **more)


@dataclass(frozen=True)
class Serving:
    """The options of a server, whatever it serves."""

    prompts: Annotated[list[str] | None, typer.Option(help="NAME=FOLDER, once for each prompt to serve")] = None
    prompts_root: Annotated[
        Path | None, typer.Option(help="a folder; those below it may be loaded while the server runs")
    ] = None
    host: Annotated[str, typer.Option(help="address to listen at; 0.0.0.0 for all")] = "127.0.0.1"
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free")] = 8000
    token_file: Annotated[
        Path | None, _access(f"a file that holds the token requests must bear  [default: {TOKEN}, else none]")
    ] = None
    allow_host: Annotated[
        list[str] | None, _access("a name by which it may be called too, such as search.example.org")
    ] = None
    max_body: Annotated[int, _access("bytes of a request", min=1024)] = 1 << 20
    max_text: Annotated[int, _access("characters of a query", min=1)] = 8192
    max_queries: Annotated[int, _access("queries of a request", min=1)] = 256
    max_k: Annotated[int, _access("hits of a query", min=1)] = 100
    batch: Annotated[int, _access("queries encoded together", min=1)] = 32
    batches: Annotated[
        int | None,
        _access("batches at a time, each on its share of the cores  [default: one a core, up to 4; GPU: 1]", min=1),
    ] = None
    queue: Annotated[int, _access("queries that may wait; then 429", min=1)] = 1024
    timeout: Annotated[float, _access("seconds; then 503", min=0.1, max=86_400)] = 30.0

    def limits(self, device: str) -> dict[str, Any]:
        """The fields of `Limits`, of a model on a device; see `serving.batching.share_cores`."""
        from retrieval_prompts.serving.batching import share_cores

        return {
            "body": self.max_body,
            "text": self.max_text,
            "queries": min(self.max_queries, self.queue),  # of more no request would ever find room
            "k": self.max_k,
            "batch": self.batch,
            "batches": share_cores(self.batches, device),
            "waiting": self.queue,
            "timeout": self.timeout,
        }

    def start(self, opened: Callable[[dict[str, Path]], tuple[Application, str]]) -> None:
        """Serve until the end.

        Args:
            opened: prompts by name -> the application, and what it serves, in words.
        """
        named, token = _named(self.prompts or []), _token(self.token_file)
        try:
            from retrieval_prompts.serving import server
        except ImportError as error:
            raise UserError(f'serve needs its server: pip install "retrieval-prompts[serve]" ({error})') from None
        hosts = server.allowed_hosts(self.host, tuple(self.allow_host or ()))
        with server.listening(self.host, self.port, self.timeout) as at:  # before a model is loaded for nothing
            web, what = opened(named)
            if token is None and not server.is_local(self.host):
                who = f"anyone who can reach {self.host} may search and load prompts"
                console.warn(f"{who}: set {TOKEN}, or give --token-file")
            shown, number = at.getsockname()[:2]
            address = f"http://{f'[{shown}]' if ':' in shown else shown}:{number}"
            counted = f"{what}, {len(named)} prompt{'' if len(named) == 1 else 's'}"
            started = partial(print, f"{address}  ({counted})", flush=True)
            server.serve(web, at, hosts=hosts, token=token, started=started)


def with_serving(**defaults: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command the options of a server in place of its parameter `serving`, which gets them; some with another
    default."""
    hints = get_type_hints(Serving, include_extras=True)
    added = [
        inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=defaults.get(each.name, each.default),
            annotation=hints[each.name],
        )
        for each in fields(Serving)
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**values: Any) -> None:
            given = Serving(**{each.name: values.pop(each.name) for each in added})
            command(**values, serving=given)

        return replaced(command, run, "serving", added)

    return decorate


def _named(given: list[str]) -> dict[str, Path]:
    """NAME=FOLDER each -> name -> folder. Raises UserError."""
    found: dict[str, Path] = {}
    for each in given:
        name, sign, folder = each.partition("=")
        if not (sign and name and folder):
            raise UserError(f"expected --prompts NAME=FOLDER, got {each!r}")
        if name in found:
            raise UserError(f"two prompts are named {name!r}; give each a name of its own")
        found[name] = Path(folder)
    return found


def _token(file: Path | None) -> str | None:
    """The token of a file or of the environment; None where there is none.

    Raises:
        UserError: for an empty one.
    """
    if file is None:
        token, source = os.environ.get(TOKEN), TOKEN
    else:
        try:
            token, source = file.read_text(encoding="utf-8").strip(), str(file)
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"the token in {file} cannot be read ({error})") from None
    if token is None:
        return None
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise UserError(f"expected a token of printable ASCII without spaces in {source}")
    return token
