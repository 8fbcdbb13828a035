"""Locks on files, which end with their process however it ends: one process works on a run at a time.

They are `flock`'s. On one machine they always hold. On a folder that several machines share they hold where
the file system passes them on: NFS from version 3 with its lock daemon and version 4 do (not where it is
mounted with ``local_lock``), Lustre where it is mounted with ``flock``, GPFS and BeeGFS as their
administrators have set them. A file system without locks is refused.
"""

import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOG = logging.getLogger(__name__)


class Busy(Exception):
    """Another process holds a lock."""


@contextmanager
def held(path: Path, what: str, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a file, which is there no longer than the lock.

    Args:
      path: of the file, which is made.
      what: is locked, in words.
      wait: for another process that holds it, which is said in one line; otherwise `Busy` is raised.

    Raises: Busy; ValueError where the file system has no locks.
    """
    descriptor = _acquired(path, what, wait)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquired(path: Path, what: str, wait: bool) -> int:
    said = False
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 1000).decode(errors="replace") or "another process"
            if not wait:
                os.close(descriptor)
                raise Busy(f"{holder} works on {what}") from None
            if not said:
                LOG.info("waiting: %s works on %s", holder, what)
                said = True
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            os.close(descriptor)
            raise ValueError(
                f"output_dir: the file system of {path.parent} has no locks ({error.strerror}), so two "
                "processes could write the same run: choose a folder on another one"
            ) from error
        if _is(path, descriptor):
            os.truncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
            return descriptor
        os.close(descriptor)  # whoever held it has removed the file: the next process would lock another one


def _is(path: Path, descriptor: int) -> bool:
    try:
        there, ours = os.stat(path), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
