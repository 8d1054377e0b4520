"""What an index folder may name, which may be someone else's.

A server gets a key or password where a user has typed it, where it is of this machine, or where it is listed. A local
folder of Qdrant's, whose client unpickles what it holds, is opened where this user has typed it before.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
from pathlib import Path

from retrieval_prompts.errors import UserError, few
from retrieval_prompts.files import default_cache, read_json, write_json
from retrieval_prompts.interop.stores.address import Address

LISTED = "RETRIEVAL_PROMPTS_SERVERS"  # names, with commas between them
KEYS = {"qdrant": ["QDRANT_API_KEY"], "milvus": ["MILVUS_TOKEN"], "pgvector": ["PGPASSWORD", "PGSERVICE"]}
READING = ("hostaddr", "passfile", "service")  # by which PostgreSQL's library finds a password that is of another host
SERVER = re.compile(r"\w+://(?:[^/@\\?#\s]*@)?(\[[0-9a-fA-F:.]+\]|[\w.-]+)(?::\d+)?(?:[/?][^\\\s]*)?")


def key_of(kind: str) -> str | None:
    """The key that the environment has for such a store."""
    return os.environ.get(KEYS[kind][0]) or None


def remember(address: Address) -> None:
    """Note a local store that was opened, after `check_named` where an index folder named it."""
    if _unpickled(address) and (place := _resolved(address)) not in (known := _known()):
        with contextlib.suppress(OSError):  # without a cache it is to be typed each time
            _list().parent.mkdir(parents=True, exist_ok=True)
            write_json(_list(), [*known, place])


def check_named(address: Address, folder: object) -> None:
    """Raises UserError where a server that an index folder names would get a key, and nobody has said it may, and for
    a local store that would be unpickled and that this user has never named."""
    if _unpickled(address) and _resolved(address) not in _known():
        raise UserError(
            f"{folder} names {address.shown}, whose client would unpickle what is there, which can run code; if it is "
            f'yours, name it once yourself: retrieval-prompts search "a question" --in {address.shown}'
        )
    options = _connection(address.place) if address.kind == "pgvector" else {}
    keys = [name for name in KEYS.get(address.kind, ()) if os.environ.get(name)]
    keys += [name for name in READING if options.get(name)]
    listed = {each.strip().lower() for each in os.environ.get(LISTED, "").split(",")}
    others = [each for each in _servers(address, options) if not _is_here(each) and each.lower() not in listed]
    if keys and others:
        raise UserError(
            f"{folder} names the server {few(others)}, which would get a password or key of yours ({keys[0]}); if you "
            f"trust it, set {LISTED}={','.join(others)}, or name the store yourself: --in {address.shown}"
        )


def _list() -> Path:
    """The list of the local stores that this user has typed."""
    return default_cache() / "stores.json"


def _unpickled(address: Address) -> bool:
    return address.kind == "qdrant" and "://" not in address.place


def _resolved(address: Address) -> str:
    return str(Path(address.place).expanduser().resolve())


def _known() -> list[str]:
    try:
        found = read_json(_list())
    except (OSError, UserError):
        return []
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


def _servers(address: Address, options: dict[str, str]) -> list[str]:
    if address.kind == "pgvector":
        named = ",".join(options.get(each) or "" for each in ("host", "hostaddr"))
        return list(dict.fromkeys(each for each in named.split(",") if each))
    if "://" not in address.place:
        return []
    found = SERVER.fullmatch(address.place)
    return [found[1] if found else address.place]


def _connection(place: str) -> dict[str, str]:
    """Options of PostgreSQL; none where they, or its client, are not there: then nothing is connected to."""
    try:
        from psycopg import Error, conninfo
    except ImportError:
        return {}
    try:
        return {name: str(value) for name, value in conninfo.conninfo_to_dict(place).items()}
    except Error:
        return {}


def _is_here(server: str) -> bool:
    """Whether it is this machine: a loopback address, or a socket."""
    try:
        return ipaddress.ip_address(server.strip("[]")).is_loopback
    except ValueError:
        return server.lower() == "localhost" or server[0] in "/@"
