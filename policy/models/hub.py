"""Download any model from the Hugging Face hub by its id, OWNER/MODEL.

The library `huggingface_hub` handles addresses, tokens, errors, retries and the progress bar. However, it keeps
only complete downloads, and it compares sizes instead of hashes. Therefore this module writes the file itself. An
incomplete file has the expected hash in its name. After an interruption, the next download resumes this file. A file
gets its final name only when its hash is right. `pull.py` downloads the pinned models without this module.

Models are stored in `CACHE/OWNER--NAME/`. The library is in the extra `hub` and not a dependency, because it needs
about a dozen more packages.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from policy.errors import ModelInvalid, ModelMissing
from policy.extras import advice
from policy.models.lock import only_one
from policy.models.pull import SPARE_BYTES, disk_full
from policy.models.shards import name_without_shard

_BLOCK = 1 << 20
_PROJECTOR = re.compile(r"mmproj", re.I)
_NEEDED = ("config.json", "tokenizer.json")


@dataclass(frozen=True, slots=True)
class Remote:
    """A file of a repository on the hub. `digest` is the SHA-256 of a large file, and git's SHA-1 of any other file."""

    name: str
    size: int
    digest: str

    @property
    def base(self) -> str:
        """The file's name without folders."""
        return PurePosixPath(self.name).name


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a repository at one commit."""

    repository: str
    commit: str
    license: str
    files: tuple[Remote, ...]


def pull(repository: str, file: str, cache: Path, say: Callable[[str], None] = lambda line: None) -> Path:
    """Download `file` of `repository`, or its only model if `file` is empty. Return the GGUF file or checkpoint folder.

    `say` gets progress messages, one line each. Raises `ModelMissing` if the model cannot be downloaded, and
    `ModelInvalid` if a hash is wrong, or if the repository has several models or none that can be used.
    """
    with _explain_errors(repository):
        listing = list_files(repository)
        chosen = choose(listing, file)
        folder = cache / repository.replace("/", "--")
        folder.mkdir(parents=True, exist_ok=True)
        with only_one(folder / ".lock", repository, say):
            absent = [remote for remote in chosen if not _is_there(folder / remote.base, remote)]
            _check_room(folder, absent)
            if absent:
                size = sum(remote.size for remote in absent) / 1e9
                say(f"downloading {repository}, {size:,.2f} GB, license: {listing.license}, into {folder}")
            for remote in absent:
                _download(listing, remote, folder / remote.base)
    first = folder / chosen[0].base
    return first if first.suffix == ".gguf" else folder


def list_files(repository: str) -> Listing:
    """Return the files of `repository` on the hub. Raises the errors of `huggingface_hub`."""
    from huggingface_hub import HfApi

    info = HfApi(library_name="repoformer-lsp").model_info(repository, files_metadata=True, timeout=30)
    files = [
        Remote(entry.rfilename, entry.lfs.size, entry.lfs.sha256)
        if entry.lfs
        else Remote(entry.rfilename, entry.size or 0, entry.blob_id or "")
        for entry in info.siblings or ()
    ]
    license = getattr(info.card_data, "license", None) or "not stated"
    return Listing(repository, info.sha or "main", str(license), tuple(files))


def choose(listing: Listing, file: str) -> tuple[Remote, ...]:
    """Return the files to download: `file` with its shards, the only GGUF model, or a checkpoint with its tokenizer.

    Raises `ModelMissing` if `file` does not exist. Without `file`, raises `ModelInvalid` if the repository has several
    GGUF models, or no model that can be used.
    """
    models: dict[str, list[Remote]] = {}
    for remote in sorted(listing.files, key=lambda remote: remote.name):
        if remote.name.endswith(".gguf") and not _PROJECTOR.search(remote.base):
            models.setdefault(name_without_shard(remote.name), []).append(remote)
    named = "".join(
        f"\n  {listing.repository}:{parts[0].name}  {sum(part.size for part in parts) / 1e9:,.2f} GB"
        for parts in models.values()
    )
    if file:
        for parts in models.values():
            if any(file in {part.name, part.base} for part in parts):
                return tuple(parts)
        raise ModelMissing(f"{listing.repository} does not contain {file}. Its GGUF files:{named or ' none'}")
    if len(models) == 1:
        return tuple(next(iter(models.values())))
    if models:
        raise ModelInvalid(f"{listing.repository} contains several models. Choose one:{named}")
    top = {remote.name: remote for remote in listing.files if "/" not in remote.name}
    weights = [name for name in sorted(top) if name.endswith(".safetensors")]
    weights = weights or [name for name in sorted(top) if re.fullmatch(r"pytorch_model.*\.bin", name)]
    if not weights or any(name not in top for name in _NEEDED):
        raise ModelInvalid(
            f"{listing.repository} contains no GGUF and no checkpoint that can be converted ({', '.join(_NEEDED)} "
            "and weights as *.safetensors)."
        )
    indexes = [name for name in sorted(top) if name.endswith(".safetensors.index.json")]
    return tuple(top[name] for name in (*_NEEDED, *indexes, *weights))


def _download(listing: Listing, remote: Remote, target: Path) -> None:
    """Download a file, or resume its incomplete download. Rename the file to `target` when its hash is right.

    Raises `ModelInvalid` if the hash is wrong.
    """
    from huggingface_hub import get_token, hf_hub_url
    from huggingface_hub.file_download import http_get

    token = get_token()
    part = target.with_name(f"{target.name}.{remote.digest[:12]}.part")
    if part.is_file() and part.stat().st_size > remote.size:
        part.unlink()
    with part.open("ab") as sink:
        http_get(
            hf_hub_url(listing.repository, remote.name, revision=listing.commit),
            sink,
            resume_size=sink.tell(),
            headers={"Accept-Encoding": "identity"} | ({"authorization": f"Bearer {token}"} if token else {}),
            expected_size=remote.size,
            displayed_filename=remote.base,
        )
        sink.flush()
        os.fsync(sink.fileno())
    if (found := digest(part, remote)) != remote.digest:
        part.unlink()
        raise ModelInvalid(
            f"The hash of {remote.base} is {found}, but {listing.repository} lists {remote.digest}. The download was "
            "deleted. Try again. If this happens again, a proxy between this machine and the hub may be changing files."
        )
    part.replace(target)


def digest(path: Path, remote: Remote) -> str:
    """Return the hash of a local file, computed with the method that the hub uses for `remote`."""
    hashed = hashlib.sha256()
    if len(remote.digest) == 40:
        hashed = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            hashed.update(block)
    return hashed.hexdigest()


def _is_there(path: Path, remote: Remote) -> bool:
    return path.is_file() and path.stat().st_size == remote.size and digest(path, remote) == remote.digest


def _check_room(folder: Path, absent: Sequence[Remote]) -> None:
    begun = sum(path.stat().st_size for path in folder.glob("*.part"))
    missing = sum(remote.size for remote in absent) - begun
    free = shutil.disk_usage(folder).free
    if missing > 0 and missing + SPARE_BYTES > free:
        raise disk_full(folder, f"the download needs {missing / 1e9:,.2f} GB, and {free / 1e9:,.2f} GB are free")


@contextmanager
def _explain_errors(repository: str) -> Iterator[None]:
    """Replace the errors of `huggingface_hub` by a `ModelMissing` that says what the user can do."""
    try:
        import httpx2
        from huggingface_hub import constants, errors
    except ModuleNotFoundError as absent:
        raise ModelMissing(f"{absent.name} is not installed. {advice('hub')}") from absent
    hub = constants.ENDPOINT
    try:
        yield
    except errors.HFValidationError as problem:
        raise ModelMissing(f"{repository!r} is neither a name in the catalog nor a Hugging Face id (OWNER/NAME). "
                           "`repoformer-lsp model pull` lists the catalog.") from problem  # fmt: skip
    except errors.GatedRepoError as problem:
        raise ModelMissing(
            f"{repository} is gated. Accept its terms at {hub}/{repository}, log in with `hf auth login` or set "
            "HF_TOKEN, and run the same command again."
        ) from problem
    except errors.RepositoryNotFoundError as problem:
        raise ModelMissing(
            f"There is no model {repository} at {hub}, or it is private. Check the id. For a private model, log in "
            "with `hf auth login` or set HF_TOKEN."
        ) from problem
    except errors.OfflineModeIsEnabled as problem:
        raise ModelMissing(
            "HF_HUB_OFFLINE is set, so nothing is downloaded. Unset it to download a model."
        ) from problem
    except errors.HfHubHTTPError as problem:
        status = problem.response.status_code
        raise ModelMissing(f"{hub} answered with status {status} for {repository}. Try again later.") from problem
    except httpx2.HTTPError as problem:
        raise ModelMissing(
            f"{hub} cannot be reached, or the connection was interrupted ({problem}). Check the network and the proxy "
            "settings, and run the same command again, which resumes the download."
        ) from problem
    except OSError as problem:
        if problem.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise disk_full(problem.filename or "the models", problem.strerror or "no space left") from problem
        raise ModelMissing(f"Cannot download {repository}: {problem}") from problem
