"""retrieval-prompts serve."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from retrieval_prompts.cli import console
from retrieval_prompts.cli.options import AS_SAID, Device, Trust, with_conventions
from retrieval_prompts.errors import UserError
from retrieval_prompts.towers.conventions import Conventions

TOKEN = "RETRIEVAL_PROMPTS_TOKEN"  # the environment variable, not the token
ACCESS = "Who may ask, and how much"


@with_conventions
def serve(
    index: Annotated[str, typer.Argument(help="an index folder")],
    prompts: Annotated[list[str] | None, typer.Option(help="NAME=FOLDER, once for each prompt to serve")] = None,
    prompts_root: Annotated[
        Path | None, typer.Option(help="a folder; those below it may be loaded while the server runs")
    ] = None,
    host: Annotated[str, typer.Option(help="address to listen at; 0.0.0.0 for all")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help=f"a file that holds the token requests must bear  [default: {TOKEN}, else none]",
            rich_help_panel=ACCESS,
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="a name by which it may be called too, such as search.example.org", rich_help_panel=ACCESS),
    ] = None,
    max_body: Annotated[int, typer.Option(min=1024, help="bytes of a request", rich_help_panel=ACCESS)] = 1 << 20,
    max_text: Annotated[int, typer.Option(min=1, help="characters of a query", rich_help_panel=ACCESS)] = 8192,
    max_queries: Annotated[int, typer.Option(min=1, help="queries of a request", rich_help_panel=ACCESS)] = 256,
    max_k: Annotated[int, typer.Option(min=1, help="hits of a query", rich_help_panel=ACCESS)] = 100,
    batch: Annotated[int, typer.Option(min=1, help="queries encoded together", rich_help_panel=ACCESS)] = 32,
    queue: Annotated[int, typer.Option(min=1, help="queries that may wait; then 429", rich_help_panel=ACCESS)] = 1024,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=86_400, help="seconds; then 503", rich_help_panel=ACCESS)
    ] = 30.0,
    model: Annotated[str | None, typer.Option(help="the model, when it has moved  [default: the index's own]")] = None,
    conventions: Conventions = AS_SAID,
    device: Device = None,
    trust_remote_code: Trust = False,
) -> None:
    """Serve an index with many prompts over HTTP: /search, /v1/embeddings as OpenAI's clients ask, a page at /.

    retrieval-prompts serve INDEX --prompts legal=PROMPTS/legal --prompts medical=PROMPTS/medical
    """
    named = _named(prompts or [])
    token = _token(token_file)
    try:
        from retrieval_prompts.serving import server
        from retrieval_prompts.serving.limits import Limits
        from retrieval_prompts.serving.web import Web
    except ImportError as error:
        raise UserError(f'serve needs its server: pip install "retrieval-prompts[serve]" ({error})') from None
    from retrieval_prompts.serving.served import open_shelf

    queries = min(max_queries, queue)  # of more no request would ever find room
    limits = Limits(max_body, max_text, queries, max_k, batch, queue, timeout)
    hosts = server.allowed_hosts(host, tuple(allow_host or ()))
    with server.listening(host, port, timeout) as at:  # before a model is loaded for nothing
        asked = {"model": model, "conventions": conventions, "device": device, "trust_remote_code": trust_remote_code}
        shelf = open_shelf(index, named, prompts_root, **asked)
        if token is None and not server.is_local(host):
            console.warn(f"anyone who can reach {host} may search and load prompts: set {TOKEN}, or give --token-file")
        shown, number = at.getsockname()[:2]
        address = f"http://{f'[{shown}]' if ':' in shown else shown}:{number}"
        what = f"{len(shelf.searcher.index):,} documents, {len(named)} prompt{'' if len(named) == 1 else 's'}"
        started = partial(print, f"{address}  ({what})", flush=True)
        server.serve(Web(shelf, limits), at, hosts=hosts, token=token, started=started)


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
