"""The directory that a PBX records into, read with care: whoever names a file in it may be a stranger.

A name comes from AMI (the dialplan may have put a caller's number into it) or from the directory itself. It is followed
from the root down, one directory at a time, never through a link, never out; what cannot be followed is Refused with a
reason for the admin. Blocking calls, for a thread.
"""

import errno
import fcntl
import os
import re
import signal
import stat
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

LONGEST_NAME: Final = 255  # bytes, of one part of a path
LONGEST_PATH: Final = 600  # characters, as the store keeps them
DEEPEST: Final = 16  # directories below the root
_F_SETSIG: Final = 10  # linux/fcntl.h; the module has no name for it
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\x80-\x9f\u2028\u2029]")
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Refused(Exception):
    """A name that is not followed; the text says why."""


class Missing(Exception):
    """There is no such file."""


class Look(NamedTuple):
    """A file as it was when it was looked at; equal looks mean that nothing was written between them."""

    device: int
    inode: int
    size: int  # bytes
    modified_ns: int

    @classmethod
    def at(cls, status: os.stat_result) -> "Look":
        """The look that a stat gives."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class Found(NamedTuple):
    """An entry below the root. `fault`: why it cannot be taken, "" for an ordinary file."""

    name: str  # relative to the root; as os.fsdecode gives it
    look: Look
    fault: str = ""
    unread: bool = False  # a folder, and what is in it is not known


class RecordingSpool:
    """One PBX's recordings on this machine.

    root: the directory here. seen_as: what the PBX calls the same directory; None where that is the same path.
    Relative paths are not allowed: Asterisk tells absolute ones. setting: the key of [[pbx]] that named it.
    """

    def __init__(self, root: Path, seen_as: str | None = None, setting: str = "recordings") -> None:
        self.root = root
        self.setting = setting
        self.seen_as = (seen_as or str(root)).rstrip("/")

    def name_of(self, path: str) -> str:
        """The name below the root of a path that the PBX told. Raises Refused."""
        if len(path) >= LONGEST_PATH:  # the store cut it
            raise Refused(f"the path is {LONGEST_PATH} characters long or longer")
        if "\ufffd" in path or any("\ud800" <= c <= "\udfff" for c in path):
            raise Refused("the path is not UTF-8: rename the file")
        if _CONTROL.search(path):
            raise Refused("the path holds a control character or a line end: rename the file")
        if not path.startswith(self.seen_as + "/"):
            raise Refused(f"the path is not below {self.seen_as}: set pbx.{self.setting} and {self.setting}_seen_as")
        name = path[len(self.seen_as) + 1 :]
        for part in name.split("/"):
            if part in ("", ".", ".."):
                raise Refused("the path holds an empty part, '.' or '..'")
            if len(os.fsencode(part)) > LONGEST_NAME:
                raise Refused(f"a name in the path is longer than {LONGEST_NAME} bytes")
        return name

    def path_of(self, name: str) -> str:
        """What the PBX calls the file of that name, cut to LONGEST_PATH; what is not printable is escaped."""
        text = os.fsencode(name).decode("utf-8", "backslashreplace")
        path = f"{self.seen_as}/{_CONTROL.sub(_escaped, text)}"
        if len(path) <= LONGEST_PATH:
            return path
        return (
            f"{path[: LONGEST_PATH - 17]}…{sha256(os.fsencode(name)).hexdigest()[:16]}"  # still too long to be followed
        )

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading. Raises Refused, Missing, OSError."""
        parent, last = self._parent(name)
        try:
            file = os.open(last, _FILE, dir_fd=parent)
        except OSError as error:
            raise _said(error, last) from error
        finally:
            os.close(parent)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise Refused("it is no ordinary file")
        return os.fdopen(file, "rb", buffering=0)

    def remove(self, name: str, look: Look) -> bool:
        """Remove a file if it still is what it was at that look; say whether it is gone. Raises Refused, OSError."""
        try:
            parent, last = self._parent(name)
        except Missing:
            return True
        try:
            if Look.at(os.stat(last, dir_fd=parent, follow_symlinks=False)) != look:
                return False
            os.unlink(last, dir_fd=parent)
        except FileNotFoundError:
            pass
        finally:
            os.close(parent)
        return True

    def walk(self) -> Iterator[Found]:
        """Everything below the root that is no directory; what cannot be taken with its fault. Raises OSError."""
        folders: list[tuple[str, Look | None]] = [("", None)]
        while folders:
            prefix, look = folders.pop()
            try:
                entries = self._entries(prefix)
            except (Missing, Refused):
                continue  # gone, or a link by now
            except OSError as error:
                if look is None:
                    raise
                yield Found(prefix[:-1], look, f"a folder that cannot be read: {error.strerror}", unread=True)
                continue
            for entry, status in entries:
                name = prefix + entry
                if not stat.S_ISDIR(status.st_mode):
                    yield Found(name, Look.at(status), self._fault(name, status.st_mode))
                elif prefix.count("/") >= DEEPEST:
                    yield Found(name, Look.at(status), f"more than {DEEPEST} folders deep: move it up")
                else:
                    folders.append((f"{name}/", Look.at(status)))

    def _entries(self, prefix: str) -> list[tuple[str, os.stat_result]]:
        """What is in a folder, "" or with a slash at its end. Raises Missing, Refused, OSError."""
        entries = []
        at, _ = self._parent(prefix)
        try:
            for entry in os.listdir(at):
                try:
                    entries.append((entry, os.stat(entry, dir_fd=at, follow_symlinks=False)))
                except FileNotFoundError:
                    continue  # gone since it was listed
        finally:
            os.close(at)
        return entries

    def free_bytes(self) -> int:
        """Room that is left for recordings. Raises OSError."""
        room = os.statvfs(self.root)
        return room.f_bavail * room.f_frsize

    def _fault(self, name: str, mode: int) -> str:
        if stat.S_ISLNK(mode):
            return "a symbolic link, not followed: move the file here"
        if not stat.S_ISREG(mode):
            return "no ordinary file"
        try:
            self.name_of(f"{self.seen_as}/{name}")
        except Refused as refused:
            return str(refused)
        return ""

    def _parent(self, name: str) -> tuple[int, str]:
        """A descriptor of the directory that holds the file, and the last part of its name."""
        *folders, last = name.split("/")
        parent = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for folder in folders:
            try:
                child = os.open(folder, _DIRECTORY, dir_fd=parent)
            except OSError as error:
                raise _said(error, folder) from error
            finally:
                os.close(parent)
            parent = child
        return parent, last


ByPbx = Callable[[], Mapping[str, RecordingSpool]]
"""Directories by the name of the PBX, as far as it is known now."""

SETTINGS: Final = {"call": "recordings", "voicemail": "voicemail", "ari": "ari_recordings"}
"""By the kind of a recording, the key of [[pbx]] that says where such files are."""


class Directories(NamedTuple):
    """Where the PBXs that are followed keep their files: MixMonitor's, messages in mailboxes, what ARI records."""

    recordings: ByPbx = dict
    voicemail: ByPbx = dict
    ari: ByPbx = dict

    def of(self, kind: str, pbx: str) -> RecordingSpool | None:
        """Where a PBX keeps files of that kind of recording; None where we cannot see it."""
        by_pbx = {"voicemail": self.voicemail, "ari": self.ari}.get(kind, self.recordings)
        return by_pbx().get(pbx)


def is_written(file: BinaryIO) -> bool | None:
    """Does any process have the file open for writing? None where the kernel won't tell.

    A read lease is granted only on a file that nobody writes; it is given back at once. Only the file's owner and root
    may ask, and not every network file system knows leases. Source: fcntl(2), F_SETLEASE.
    """
    try:
        # Broken in the moment we hold it, a lease sends SIGIO, which kills; SIGURG is ignored.
        fcntl.fcntl(file, _F_SETSIG, signal.SIGURG)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    return False


def _escaped(character: re.Match[str]) -> str:
    return f"\\x{ord(character[0]):02x}"


def _said(error: OSError, part: str) -> Exception:
    match error.errno:
        case errno.ENOENT:
            return Missing(part)
        case errno.ELOOP:
            return Refused("the path holds a symbolic link, which is not followed")
        case errno.ENOTDIR:
            return Refused("a folder in the path is none, or a symbolic link, which is not followed")
        case errno.ENXIO:
            return Refused("it is no ordinary file")
        case _:
            return error
