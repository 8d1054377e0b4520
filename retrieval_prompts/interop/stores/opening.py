"""The address of a store -> the store; an index folder -> the index, wherever its vectors are."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retrieval_prompts.errors import DataWarning, UserError, first_line
from retrieval_prompts.interop.stores.address import Address, Fields, is_address, parse
from retrieval_prompts.interop.stores.trust import check_named, remember
from retrieval_prompts.towers.text import TextTower
from retrieval_prompts.vectors.foreign_files import Chosen
from retrieval_prompts.vectors.index import Index
from retrieval_prompts.vectors.index_manifest import read_manifest
from retrieval_prompts.vectors.likeness import check_made
from retrieval_prompts.vectors.store import StoreIndex, Writable

USUAL = Fields()


def open_store(address: str | Address, fields: Fields = USUAL) -> Writable:
    """Open a store; with `fields.dimension` its collection is made where there is none.

    An index folder may name a local store that was opened before (see `trust`).

    Raises:
        UserError: where its client is not installed, or there is no such place, collection or field.
    """
    where = parse(address) if isinstance(address, str) else address
    try:
        found: Writable = _opener(where.kind)(where, fields)
        remember(where)
        return found
    except ImportError as error:
        raise UserError(
            f'{where.kind} needs its client: pip install "retrieval-prompts[{where.kind}]" ({error})'
        ) from None
    except UserError:
        raise
    except Exception as error:  # each client has errors of its own
        said = first_line(error)
        if where.place not in where.shown:  # for it has a password
            said = said.replace(where.place, "the address")
        raise UserError(f"{where.shown} cannot be opened: {said}") from None


def open_index(place: str | Path) -> Index:
    """An index folder, whether its vectors are in it or in a store.

    Raises:
        UserError: as `Index.open`, and as `trust.check_named`.
    """
    manifest = read_manifest(Path(place))
    if (named := manifest.get("store")) is None:
        return Index.open(place)
    if not named.get("address"):
        raise UserError(f"{place} is of a store of your own; open it with StoreIndex.open_over(folder, store)")
    address = parse(str(named["address"]))
    check_named(address, place)
    store = open_store(address, Fields(named.get("id_field"), named.get("vector_field")))
    return StoreIndex.open_over(place, store)


def over_all(address: str, encoder: Mapping[str, Any], dimension: int) -> StoreIndex:
    """An index of all that a store holds, for a search without a folder.

    Raises:
        UserError: as `open_store`.
    """
    if encoder.get("document_prompt") is not None:
        raise UserError(
            f"these prompts have a document side, and there is no way to tell whether {shown(address)} has it too; "
            "write the store and a folder with index --to STORE --out INDEX, and search that"
        )
    return StoreIndex.over(open_store(address), None, encoder=encoder, dimension=dimension)


def shown(place: object) -> str:
    """A place, for messages: the address of a store without a password."""
    return parse(place).shown if isinstance(place, str) and is_address(place) else str(place)


def check_found(tower: TextTower, index: StoreIndex, ids: Sequence[str], place: str) -> None:
    """Compare what a search has found in such an index with what the model makes of its texts, where the store has
    some; where it has none, that is said.

    Raises:
        UserError: as `likeness.check_made`.
    """
    if not ids:
        return
    texted = [each for each in (index.document(id) for id in ids) if each.content]
    if not texted:
        warnings.warn(
            f"{place} holds no texts, so there is no way to tell here whether {tower.name} made its vectors; adopt can",
            DataWarning,
            stacklevel=3,
        )
        return
    held = Chosen(index.vectors.vectors([each.id for each in texted]))
    check_made(tower, texted, held, what=f"the vectors of {place}")


def _opener(kind: str) -> Any:
    if kind == "qdrant":
        from retrieval_prompts.interop.stores.qdrant import open_qdrant

        return open_qdrant
    if kind == "lancedb":
        from retrieval_prompts.interop.stores.lance import open_lance

        return open_lance
    if kind == "milvus":
        from retrieval_prompts.interop.stores.milvus import open_milvus

        return open_milvus
    from retrieval_prompts.interop.stores.pgvector import open_pgvector

    return open_pgvector
