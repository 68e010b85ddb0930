"""A place for shards: a local folder, or one of a store behind a URL, reached by fsspec.

A store is reached only when a URL is given, and knows its user from the environment alone. What a store's
client says of a failure may hold an endpoint or a key, so it is never repeated: the sentences are ours.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError, system_sentence
from ..files import TEMPORARY_PREFIX, atomic_path, remove_leftovers

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(:|//)")
_SECRET = re.compile(r"(key|secret|token|passw(or)?d|signature|sig|credential)[^/=&]*=", re.IGNORECASE)
_CONTAINER_BEFORE_ACCOUNT = ("abfs", "abfss", "wasb", "wasbs")
"""Protocols whose URLs have the form CONTAINER@ACCOUNT, which is no user."""
BUCKETS = ("s3", "s3a", "gs", "gcs", "az", "adl", *_CONTAINER_BEFORE_ACCOUNT)
"""Protocols whose first part is a bucket, which is never made here."""
_STORES = (*BUCKETS, "memory", "sftp", "hdfs", "file")
PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "adl": "adlfs"}
PACKAGES |= dict.fromkeys(_CONTAINER_BEFORE_ACCOUNT, "adlfs")
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_NO_CREDENTIALS = (
    *("credential", "authtoken", "ssotoken", "profilenotfound", "tokenretrieval", "refresherror"),
    "clientauthentication",
)
"""Parts of the names, in small letters, of what clients raise without valid credentials."""
_NETWORK = ("connect", "timeout", "httpclienterror", "proxyerror", "sslerror", "serverdisconnected", "dns")
_ENVIRONMENT = "credentials come from the environment alone (as AWS_ACCESS_KEY_ID or AWS_PROFILE)"


@dataclass(frozen=True)
class Place:
    """Where shards lie: `folder` is a local one; else `root` is a path in the file system `fs`.

    `name` is what a person calls it, free of secrets.
    """

    name: str
    folder: Path | None = None
    fs: Any = None
    root: str = ""
    protocol: str = ""

    def path(self, name: str) -> str:
        """What the store calls the file `name`."""
        return f"{self.root}/{name}"


def store_protocol(text: str) -> str | None:
    """The protocol of a text that is the URL of a place, None for other texts and URLs such as a server's."""
    found = _URL.match(text)
    return protocol if found and (protocol := found[1].lower()) in _STORES else None


def place_of(text: str) -> Place:
    """The place that a folder's path or a URL names; nothing is reached yet.

    Raises:
        UserError: the URL holds a secret, names no bucket, or its protocol is unknown or not installed.
    """
    found = _URL.match(text)
    if found is None:
        return Place(text, Path(text))
    protocol = found[1].lower()
    _refuse_secrets(text, protocol)
    if found[2] == ":":
        raise UserError("a URL that is chained with :: is not supported; give one such as s3://bucket/folder")
    fs = _file_system(protocol)
    root = str(fs._strip_protocol(text)).rstrip("/")
    if protocol in ("file", "local"):
        return Place(root, Path(root))
    name = f"{protocol}://{text[found.end() :].strip('/')}"
    if not root.strip("/"):
        raise UserError(f"{name} names no place; give bucket and folder, as {protocol}://bucket/folder")
    return Place(name, fs=fs, root=root, protocol=protocol)


def sizes(place: Place) -> dict[str, int]:
    """The names in a place and their sizes in bytes, hidden leftovers aside; a folder's ends in `/`.

    Empty where the place is not there yet. UserError for a bucket that is not there.
    """
    if place.folder is not None:
        if place.folder.exists() and not place.folder.is_dir():
            raise UserError(f"{place.name} is a file: give a folder for the shards")
        found = list(place.folder.iterdir()) if place.folder.is_dir() else []
        kept = [path for path in found if not path.name.startswith(TEMPORARY_PREFIX)]
        return {f"{path.name}{'/' * path.is_dir()}": path.stat().st_size for path in kept}
    with _told(place, "can't be listed"):
        place.fs.invalidate_cache()
        try:
            entries = place.fs.ls(place.root, detail=True)
        except FileNotFoundError:
            bucket = place.root.partition("/")[0]
            if place.protocol in BUCKETS and not place.fs.exists(bucket):
                raise UserError(
                    f"{place.name} has no bucket {bucket}; make it first, or correct the URL"
                ) from None
            return {}
    found_sizes = {}
    for entry in entries:
        name = str(entry["name"]).rstrip("/")
        if name == place.root.rstrip("/"):  # what some programs leave to stand for a folder
            if entry["type"] == "file" and entry["size"]:
                raise UserError(f"{place.name} is a file: give a folder for the shards")
            continue
        ending = "/" if entry["type"] == "directory" else ""
        found_sizes[name.rpartition("/")[2] + ending] = int(entry["size"] or 0)
    return found_sizes


@contextlib.contextmanager
def workspace(place: Place) -> Iterator[Path]:
    """A local folder for files on their way into or out of `place`, on the disk of a local one."""
    if place.folder is not None:
        place.folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(place.folder)
        try:
            yield place.folder
        finally:
            remove_leftovers(place.folder)
        return
    with tempfile.TemporaryDirectory(prefix="diffusioncleft-") as folder:
        yield Path(folder)


def temporary(work: Path, name: str) -> Path:
    """A name in a workspace that no reader takes for a file of the place."""
    return work / f"{TEMPORARY_PREFIX}{name}"


Moved = Callable[[int, int], None]
"""Told (bytes moved, bytes in all) while a file goes over the network."""


def put(place: Place, name: str, file: Path, moved: Moved | None = None) -> None:
    """Move the local `file` of a workspace into a place, whole or not at all; it takes the place of another.

    Stores make an object visible when it is whole. Of those that don't (sftp, smb) the size is checked.
    """
    if place.folder is not None:
        with atomic_path(place.folder / name) as target:
            os.replace(file, target)
        return
    size = file.stat().st_size
    with _told(place, "can't be written"):
        if place.protocol not in BUCKETS:
            place.fs.makedirs(place.root, exist_ok=True)
        place.fs.put_file(str(file), place.path(name), callback=_callback(moved))
        place.fs.invalidate_cache()
        written = int(place.fs.info(place.path(name))["size"])
    if written != size:
        raise UserError(
            f"{name} has {written} of {size} bytes in {place.name}; run the same command again to go on"
        )


@contextlib.contextmanager
def fetched(place: Place, name: str, work: Path, moved: Moved | None = None) -> Iterator[Path | None]:
    """The file `name` of a place as a local one, until the block ends; None where there is none."""
    if place.folder is not None:
        path = place.folder / name
        yield path if path.is_file() else None
        return
    copy = temporary(work, f"fetched-{name}")
    try:
        missing = False
        with _told(place, "can't be read"):
            try:
                place.fs.get_file(place.path(name), str(copy), callback=_callback(moved))
            except FileNotFoundError:
                missing = True
        yield None if missing else copy
    finally:
        copy.unlink(missing_ok=True)


def remove(place: Place, name: str) -> None:
    """Remove a file of a place; one that is not there is fine."""
    if place.folder is not None:
        (place.folder / name).unlink(missing_ok=True)
        return
    with _told(place, "can't be changed"), contextlib.suppress(FileNotFoundError):
        place.fs.rm_file(place.path(name))


def _refuse_secrets(text: str, protocol: str) -> None:
    """Raise UserError, which does not repeat it, for a URL with a user, a password, a key or a question."""
    authority, _, rest = text.partition("//")[2].partition("/")
    user, at, _ = authority.rpartition("@")
    is_container = protocol in _CONTAINER_BEFORE_ACCOUNT and ":" not in user
    if (at and not is_container) or "?" in text or _SECRET.search(f"{authority}/{rest}"):
        raise UserError(
            f"the {protocol} URL holds a user, a password, a key or a query, which could be recorded; leave "
            f"it out: {_ENVIRONMENT}"
        )


def _file_system(protocol: str) -> Any:
    try:
        import fsspec
    except ImportError:
        raise UserError("a URL needs the package fsspec; run: pip install fsspec") from None
    try:
        # No instance and no listing of an earlier call: others may write there.
        return fsspec.filesystem(protocol, skip_instance_cache=True, use_listings_cache=False)
    except ImportError:
        package = PACKAGES.get(protocol)
        how = f"run: pip install {package}" if package else "fsspec's documentation names it"
        raise UserError(
            f"{protocol}:// needs {f'the package {package}' if package else 'a package'} that is not "
            f"installed; {how}"
        ) from None
    except ValueError:
        raise UserError(
            f"there is no protocol {protocol}://; give a folder, or a URL such as s3://bucket/folder"
        ) from None
    except Exception as error:
        raise UserError(
            f"{protocol}:// can't be opened ({type(error).__name__}); {_ENVIRONMENT}: check it"
        ) from None


def _callback(moved: Moved | None) -> Any:
    from fsspec.callbacks import DEFAULT_CALLBACK, Callback

    if moved is None:
        return DEFAULT_CALLBACK

    def told(size: int | None, value: int, **_: object) -> None:
        moved(value, size or value)

    return Callback(hooks={"moved": told})


@contextlib.contextmanager
def _told(place: Place, what: str) -> Iterator[None]:
    """Turn whatever a store's client raises into one sentence of ours, without its words and its chain."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(_sentence(error, place, what)) from None  # the chain would be printed under DEBUG


def _sentence(error: Exception, place: Place, what: str) -> str:
    chain = list(_chain(error))
    words = " ".join(type(item).__name__ for item in chain).lower()
    full = next((item for item in chain if isinstance(item, OSError) and item.errno in _FULL), None)
    if full is not None and (said := system_sentence(OSError(full.errno, "", tempfile.gettempdir()))):
        return said
    again = "run the same command again to go on"
    if any(part in words for part in _NO_CREDENTIALS):
        return f"{place.name} {what}: no valid credentials were found; {_ENVIRONMENT}"
    if any(isinstance(item, PermissionError) for item in chain) or _code(chain) in ("403", "401"):
        return f"{place.name} {what}: access is refused; check the credentials and rights: {_ENVIRONMENT}"
    if any(isinstance(item, FileNotFoundError) for item in chain):
        return f"{place.name} {what}: bucket or folder is not there; make it first, or correct the URL"
    network = any(isinstance(item, (ConnectionError, TimeoutError)) for item in chain)
    if network or any(part in words for part in _NETWORK):
        return f"{place.name} {what}: the store is not reached; check network and endpoint, and {again}"
    if any(isinstance(item, NotImplementedError) for item in chain):
        return f"{place.name} {what}: its protocol can't do that; give another place"
    code = _code(chain) or type(error).__name__
    return (
        f"{place.name} {what} (the store's client says {code}); check the settings of the store, and {again}"
    )


def _code(chain: list[BaseException]) -> str:
    """The code of the store's answer, a word that names the kind of the error."""
    for item in chain:
        response = getattr(item, "response", None)
        said = response.get("Error", {}).get("Code", "") if isinstance(response, dict) else ""
        if re.fullmatch(r"[A-Za-z0-9]{1,40}", str(said)):
            return str(said)
    return ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    for _ in range(10):
        if found is None:
            return
        yield found
        found = found.__cause__ or found.__context__
