"""What one writing process has for itself: a locked folder, and files that appear as a whole.

The temporary file of a process lies in its folder, so that the next process of the same rank
removes what a killed one left behind.
"""
import contextlib
import fcntl
import os
import warnings
from pathlib import Path
from typing import Optional

from .layout import PENDING, pending_items, rank_folder

_LOCK, _TEMPORARY = 'lock', 'temporary'
_ATTEMPTS = 100


class RankFolder:
    """The folder of a rank's unfinished work.

    Args:
        root: Folder of the store.
        rank: Number of the process.

    Raises:
        ValueError: another process works as this rank.
        OSError: the folder cannot be made.
    """

    def __init__(self, root: Path, rank: int) -> None:
        self.root, self.rank = root, rank
        self.path = rank_folder(root, rank)
        self._lock: Optional[int] = None
        try:
            self._enter()
            # A killed process may have left it as a second name of the manifest.
            (self.path / _TEMPORARY).unlink(missing_ok=True)
        except BaseException:
            self._close()
            raise

    def publish(self, content: bytes, path: Path, durable: bool = False, replace: bool = True
                ) -> None:
        """Write a file that appears as a whole.

        Args:
            content: Of the file.
            path: Where it appears; its folder is made.
            durable: Wait until it is on the disk, to survive a power cut too.
            replace: False leaves a file that is there already as it is.

        Raises:
            OSError: no space, or no right to write; names ``path``.
        """
        temporary = self.path / _TEMPORARY
        try:
            with open(temporary, 'wb') as file:
                file.write(content)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
        except OSError as error:  # names no file where the space has run out
            raise OSError(error.errno, error.strerror, str(path)) from error
        path.parent.mkdir(parents=True, exist_ok=True)
        if replace:
            os.replace(temporary, path)
        else:
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
            temporary.unlink()
        if durable:
            _sync_folder(path.parent)

    def leave(self) -> None:
        """Unlock, and remove the folder where no item is left in it."""
        try:
            (self.path / _TEMPORARY).unlink(missing_ok=True)
            if not pending_items(self.root, self.rank):
                (self.path / _LOCK).unlink(missing_ok=True)
                for folder in (self.path, self.root / PENDING):
                    with contextlib.suppress(OSError):  # others are at work in it
                        folder.rmdir()
        finally:
            self._close()

    def _enter(self) -> None:
        """Make the folder and take its lock."""
        for attempt in range(_ATTEMPTS):
            # Whoever leaves a folder removes it and its lock, maybe between two of these steps.
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
                self._take_lock()
                if os.fstat(self._lock).st_ino == (self.path / _LOCK).stat().st_ino:
                    return
            except FileNotFoundError:
                if attempt == _ATTEMPTS - 1:
                    raise
            self._close()
        raise OSError(f'{self.path / _LOCK} keeps changing')

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f'another process is writing to {self.root} as rank {self.rank}'
                             ) from None
        except OSError as error:  # file systems without locks
            warnings.warn(f'{self.path} cannot be locked ({error}): see to it that no two '
                          f'processes write as rank {self.rank}')

    def _close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
        self._lock = None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems have no such thing
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
