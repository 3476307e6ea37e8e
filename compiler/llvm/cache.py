"""Compiled objects on disk, shared by a user's processes, and the key that vouches for them."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import llvmlite.binding as llvm

from ... import __version__
from .backend import RECIPE
from .target import Target

_KEY_BYTES = 32
_DIGEST = "sha256"
_DIGEST_BYTES = 32
_UNFINISHED = ".unfinished-"


def default_directory() -> Path:
    """QUERN_CACHE_DIR, else `quern` in the user's cache folder (XDG base directories)."""
    if own := os.environ.get("QUERN_CACHE_DIR"):
        return Path(own).expanduser()
    # The specification: a relative path here is to be ignored.
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (shared if shared.is_absolute() else Path("~/.cache").expanduser()) / "quern"


def object_key(target: Target, *parts: str | bytes) -> str:
    """Name of what these parts compile to for a target: 64 hexadecimal digits.

    The versions of Quern and LLVM, the compiler's settings and the instruction sets go in too.
    """
    digest = hashlib.sha256()
    version = ".".join(map(str, llvm.llvm_version_info))
    for part in (__version__, version, RECIPE, target.key, *parts):
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def secret_key(directory: Path) -> bytes:
    """The user's secret of 32 random bytes in `directory/key`, made on first use (mode 0600).

    Processes that make it at the same time agree on one. A damaged key, or one that others can
    read, is replaced: what it signed is then not trusted any more.

    Raises:
        OSError: it cannot be read or made, or belongs to another user.
    """
    path = directory / "key"
    for _ in range(8):  # another process may remove or replace what we are looking at
        try:
            return _read_key(path)
        except FileNotFoundError:
            pass
        except ValueError:
            with suppress(FileNotFoundError):
                path.unlink()
        temporary = _write_temporary(directory, secrets.token_bytes(_KEY_BYTES), sync=True)
        try:
            # Unlike a rename, a link never replaces the key another process has made meanwhile.
            os.link(temporary, path)
        except FileExistsError:
            pass
        finally:
            temporary.unlink(missing_ok=True)
    raise OSError(f"{path}: other processes keep replacing the key")


def _read_key(path: Path) -> bytes:
    """The key; ValueError when it is damaged or no secret, OSError when it is not ours."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        info = os.fstat(fd)
        if info.st_uid != os.geteuid():
            raise PermissionError(f"{path} belongs to another user (uid {info.st_uid})")
        if not stat.S_ISREG(info.st_mode) or stat.S_IMODE(info.st_mode) & 0o077:
            raise ValueError("not secret")
        key = file.read(_KEY_BYTES + 1)
    if len(key) != _KEY_BYTES:
        raise ValueError("damaged")
    return key


def _write_temporary(directory: Path, data: bytes, *, sync: bool = False) -> Path:
    """A new file (mode 0600) with `data`, to be renamed or linked to its place."""
    fd, name = tempfile.mkstemp(prefix=_UNFINISHED, dir=directory)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(fd)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
    return Path(name)


@dataclass(frozen=True)
class CacheStats:
    """What a cache has done since it was opened.

    Arguments:
        hits: entries found.
        misses: entries not found, or dropped.
        stored: entries written.
        dropped: damaged or foreign entries that were removed.
        evicted: entries removed to stay within the limit.
        disabled: why nothing is read or written any more; empty while all is well.
    """

    hits: int = 0
    misses: int = 0
    stored: int = 0
    dropped: int = 0
    evicted: int = 0
    disabled: str = ""


class ObjectCache:
    """Compiled objects by key, in files that several processes may use at once.

    Every entry carries an HMAC-SHA256 over its key and content. Entries that do not verify
    (truncated, damaged, written under another secret) are removed and count as missing. Where the
    folder cannot be used the cache holds nothing and says why in `stats.disabled`.

    Arguments:
        directory: where to keep it; by default `default_directory()`. Made with mode 0700.
        limit: bytes to stay below, roughly; the least recently used entries go first.
    """

    def __init__(self, directory: Path | None = None, limit: int = 1 << 30) -> None:
        self.limit = limit
        self._stats = CacheStats()
        self._lock = threading.Lock()
        self._size: int | None = None  # bytes in the folder at the last scan
        self._since = 0  # bytes stored by us after it
        try:
            self.directory = directory or default_directory()
            self._objects = self.directory / "objects"
            for folder in (self.directory, self._objects):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._secret = secret_key(self.directory)
        except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
            # A secret of this process alone: signatures hold within it and nowhere else.
            self._secret = secrets.token_bytes(_KEY_BYTES)
            self._disable(error)

    @property
    def stats(self) -> CacheStats:
        """What has happened so far."""
        return self._stats

    def get(self, key: str) -> bytes | None:
        """The object stored under a key of `object_key`, or None."""
        path = self._path(key)
        if self._stats.disabled:
            return None
        try:
            entry = path.read_bytes()
        except OSError:  # not there, or removed by another process just now
            self._count("misses")
            return None
        digest, data = entry[:_DIGEST_BYTES], entry[_DIGEST_BYTES:]
        if not hmac.compare_digest(digest, self._digest(b"entry", key.encode(), data)):
            with suppress(OSError):
                path.unlink()
            self._count("dropped", "misses")
            return None
        with suppress(OSError):
            os.utime(path)  # used now: the last to be evicted
        self._count("hits")
        return data

    def put(self, key: str, data: bytes) -> None:
        """Store an object under a key; readers see all of it or nothing."""
        path = self._path(key)
        if self._stats.disabled:
            return
        try:
            # No fsync: an entry that a power cut leaves half written does not verify.
            entry = self._digest(b"entry", key.encode(), data) + data
            temporary = _write_temporary(self._objects, entry)
            try:
                os.replace(temporary, path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        except OSError as error:
            self._disable(error)
            return
        self._count("stored")
        self._keep_within_limit(len(entry))

    def sign(self, data: bytes) -> str:
        """A digest that only holders of the user's secret can make: 64 hexadecimal digits."""
        return self._digest(b"signature", data).hex()

    def verify(self, data: bytes, digest: str) -> bool:
        """Whether `sign` made this digest for this data, in constant time."""
        return hmac.compare_digest(self.sign(data).encode(), digest.encode(errors="replace"))

    def _path(self, key: str) -> Path:
        if not key.isalnum():  # so no path separators: a key cannot lead out of the folder
            raise ValueError(f"not a cache key: {key!r}")
        return self._objects / key if not self._stats.disabled else Path(key)

    def _digest(self, purpose: bytes, *parts: bytes) -> bytes:
        """The HMAC of the parts; a purpose keeps one use's digests from serving another."""
        code = hmac.new(self._secret, purpose, _DIGEST)
        for part in parts:
            code.update(len(part).to_bytes(8, "little"))
            code.update(part)
        return code.digest()

    def _count(self, *fields: str, by: int = 1) -> None:
        with self._lock:
            more = {field: getattr(self._stats, field) + by for field in fields}
            self._stats = replace(self._stats, **more)

    def _disable(self, error: Exception) -> None:
        with self._lock:
            self._stats = replace(self._stats, disabled=f"{type(error).__name__}: {error}")

    def _keep_within_limit(self, stored: int) -> None:
        """Scan the folder when what we know of it may be over the limit, and evict to 3/4 of it."""
        with self._lock:
            self._since += stored
            known = self._size is not None and self._size + self._since <= self.limit
            # Other processes store too, so what was known gets stale.
            if known and self._since <= self.limit // 16:
                return
            self._since = 0
            self._size, evicted = _evict(self._objects, self.limit)
        self._count("evicted", by=evicted)


def _evict(folder: Path, limit: int) -> tuple[int, int]:
    """When above `limit`, remove least recently used files to 3/4 of it: (bytes left, removed)."""
    files: list[tuple[float, int, str]] = []
    abandoned = time.time() - 3600.0
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):  # another process has removed it meanwhile
                info = entry.stat(follow_symlinks=False)
                if not entry.name.startswith(_UNFINISHED):
                    files.append((info.st_mtime, info.st_size, entry.path))
                elif info.st_mtime < abandoned:
                    os.unlink(entry.path)
    total = sum(size for _, size, _ in files)
    if total <= limit:
        return total, 0
    removed = 0
    for _, size, path in sorted(files):
        if total <= limit * 3 // 4:
            break
        with suppress(OSError):
            os.unlink(path)
        total -= size
        removed += 1
    return total, removed
