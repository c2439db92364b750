"""Something odd in the place of a file: a pipe, a device, a link to nowhere."""

from __future__ import annotations

import contextlib
import enum
import os
import stat
from pathlib import Path
from typing import NamedTuple


class Kind(enum.Enum):
    """What stands in the place of a file."""

    FILE = "file"
    FOLDER = "folder"
    PIPE = "pipe"
    SOCKET = "socket"
    DEVICE = "device"  # one that can be read without end
    DANGLING_LINK = "dangling link"
    LINK_TO_ITSELF = "link to itself"
    NOTHING = "nothing"


class OddFile(NamedTuple):
    """A thing to put into a configuration folder; `place` is a path in it, `content` of a file."""

    place: str
    kind: Kind
    content: bytes = b""

    def put_into(self, folder: Path) -> None:
        """Replace what is in its place. Where that is impossible, nothing happens."""
        path = folder / self.place
        with contextlib.suppress(OSError):  # another odd file is in the place of its folder
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir() and not path.is_symlink():
                path.rename(folder / f"away-{len(list(folder.iterdir()))}")
            path.unlink(missing_ok=True)
            self.make(path)

    def make(self, path: Path) -> None:
        """Make it at a path where nothing is."""
        if self.kind is Kind.FILE:
            path.write_bytes(self.content)
        elif self.kind is Kind.FOLDER:
            path.mkdir()
        elif self.kind is Kind.PIPE:
            os.mkfifo(path)
        elif self.kind is Kind.SOCKET:
            os.mknod(path, stat.S_IFSOCK)  # bind() takes only paths of up to 107 characters
        elif self.kind is Kind.DEVICE:
            path.symlink_to("/dev/zero")
        elif self.kind is Kind.DANGLING_LINK:
            path.symlink_to("nowhere")
        elif self.kind is Kind.LINK_TO_ITSELF:
            path.symlink_to(path.name)
