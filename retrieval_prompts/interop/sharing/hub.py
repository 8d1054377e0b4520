"""Prompt folders on the Hugging Face Hub: push one, fetch one, and errors of one line. Knows no model.

What lies on a hub was written by strangers: of a repository only `prompt.json` and `prompt.safetensors` are fetched
and read, as strictly as from a local folder, and no code of it runs.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from retrieval_prompts.errors import UserError, first_line
from retrieval_prompts.files import SUMS, write_bytes
from retrieval_prompts.interop.sharing.model_card import model_card
from retrieval_prompts.prompts.folder import DESCRIPTION, VECTORS, PromptFolder, read_description, save_prompts
from retrieval_prompts.towers.text import DEFAULT_MODEL

NAME = r"[A-Za-z0-9_][\w.-]*"
REPOSITORY = re.compile(f"{NAME}/{NAME}", re.ASCII)
MODEL = re.compile(f"({NAME}/)?{NAME}", re.ASCII)
# Of a stock checkpoint that an earlier push left, and that would hold another prompt
CHECKPOINT = ["modules.json", "config*.json", "model*.safetensors*"]


def hub_name(model: str) -> str | None:
    """What a base model is called on the hub; None for a folder."""
    if model == DEFAULT_MODEL:
        return f"sentence-transformers/{DEFAULT_MODEL}"
    return model if MODEL.fullmatch(model) and not Path(model).is_dir() else None


def push(
    prompts: PromptFolder,
    repo_id: str,
    *,
    base_model: str | None = None,
    license: str | None = None,
    export: Callable[[Path], None] | None = None,
    private: bool = False,
    token: str | None = None,
    **commit: str | None,
) -> str:
    """Upload a prompt folder with a model card in one commit; the repository is made when there is none.

    A stock checkpoint that lies there is replaced, or deleted without `export`; other files stay.

    Args:
        repo_id: "user/name".
        base_model: the base model's name on the hub, where the prompts name a folder.
        license: of the prompts, for the card; None: the card has none.
        export: writes a stock checkpoint of the prompts (`BiEncoder.export`), which is uploaded beside them.
        private: of a repository that is made.
        token: None: the one of `hf auth login` or of the variable HF_TOKEN.
        commit: "revision", a branch that exists (main, if it is not given), and "commit_message".

    Returns the address of the commit.

    Raises:
        UserError: without a name, a token or a right to write, and when the hub cannot be reached.
    """
    _check_name(repo_id)
    base = hub_name(base_model or prompts.base["name"])
    if base is None:
        raise UserError(
            f"these prompts belong to a model in a folder, {base_model or prompts.base['name']}; say which model on "
            "the hub others should load: --base-model user/name (base_model=)"
        )
    from huggingface_hub import HfApi, get_token

    if token is None and get_token() is None:
        raise UserError("the hub asks who you are: log in with `hf auth login`, or set HF_TOKEN")
    prompts = replace(prompts, base={**prompts.base, "name": base})
    with TemporaryDirectory() as temporary, _hub_errors(repo_id, commit.get("revision")):
        folder = Path(temporary, "repository")
        save_prompts(folder, prompts)
        if export is not None:
            export(Path(temporary, "checkpoint"))
            (Path(temporary, "checkpoint") / SUMS).unlink(missing_ok=True)  # other files come to those that it lists
            shutil.copytree(Path(temporary, "checkpoint"), folder, dirs_exist_ok=True)
        write_bytes(folder / "README.md", model_card(prompts, repo_id, license, exported=export is not None).encode())
        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        made = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            delete_patterns=CHECKPOINT,
            revision=commit.get("revision"),
            commit_message=commit.get("commit_message", "Upload soft prompts"),
        )
    return str(made.commit_url)


def fetch(repo_id: str, *, revision: str | None = None, token: str | None = None) -> Path:
    """The prompt folder of a repository, in the hub's cache on this machine; without a network what was fetched before.

    Args:
        repo_id: "user/name"; "user/name@revision" is short for both.
        revision: a branch, a tag or a commit; None: main.

    Raises:
        UserError: when there is no such repository, revision or prompt folder, when the hub cannot be reached, and when
            the prompts name a path as their base model.
    """
    from huggingface_hub import snapshot_download

    if revision is None and "@" in repo_id:
        repo_id, revision = repo_id.split("@", 1)
    _check_name(repo_id)
    with _hub_errors(repo_id, revision):
        folder = Path(snapshot_download(repo_id, revision=revision, token=token, allow_patterns=[VECTORS, DESCRIPTION]))
    if not all((folder / name).is_file() for name in (VECTORS, DESCRIPTION)):
        raise UserError(f"{repo_id} on the hub holds no prompts: expected {VECTORS} and {DESCRIPTION} in it")
    name = read_description(folder)["base"]["name"]
    if not MODEL.fullmatch(name):
        raise UserError(
            f"{repo_id} on the hub names {name!r} as its base model; expected the name of a model on the hub"
        )
    return folder


def located(prompts: Path | str) -> Path:
    """A prompt folder's path; of "hf:user/name" or "hf:user/name@revision" the path in the cache of the hub."""
    name = str(prompts)
    return fetch(name.removeprefix("hf:")) if name.startswith("hf:") else Path(name)


def check_trust(model: object, trust_remote_code: bool) -> None:
    """Raises UserError where prompts from the hub would choose the model whose code runs."""
    if trust_remote_code and model is None:
        raise UserError("prompts from the hub do not choose whose code runs: with --trust-remote-code pass --model too")


def _check_name(repo_id: str) -> None:
    if not REPOSITORY.fullmatch(repo_id) or "--" in repo_id or ".." in repo_id:
        raise UserError(f"{repo_id!r} is not the name of a repository on the hub; expected user/name")


@contextmanager
def _hub_errors(repo_id: str, revision: str | None = None) -> Iterator[None]:
    """Raise the hub's errors as UserErrors of one line."""
    from huggingface_hub import errors

    try:
        yield
    except errors.RevisionNotFoundError:
        raise UserError(f"{repo_id} on the hub has no revision {revision or 'main'}") from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"there is no repository {repo_id} on the hub that you may read; check the name, or log in with "
            "`hf auth login` (HF_TOKEN) when it is private"
        ) from None
    except errors.HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            raise UserError(
                f"the hub does not let you do this with {repo_id}: log in with `hf auth login` (HF_TOKEN), "
                "with a token that may"
            ) from None
        raise UserError(f"the hub refused {repo_id}: {first_line(error)}") from None
    except errors.HFValidationError as error:
        raise UserError(f"{repo_id!r} is not the name of a repository on the hub: {first_line(error)}") from None
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
        raise UserError(_unreachable(repo_id)) from error
    except Exception as error:
        # The hub's client does not wrap what its HTTP library (httpx, httpx2) raises where there is no connection
        if not type(error).__module__.startswith("httpx"):
            raise
        raise UserError(_unreachable(repo_id)) from error


def _unreachable(repo_id: str) -> str:
    from huggingface_hub import constants

    offline = constants.is_offline_mode()
    why = "offline mode is on (HF_HUB_OFFLINE)" if offline else f"no usable answer from {constants.ENDPOINT}"
    return f"the hub cannot be reached for {repo_id}: {why}"
