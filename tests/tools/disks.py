"""A small file system, to be filled."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, mib: int = 4) -> Iterator[Path]:
    """A file system of so many MiB in a new folder."""
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system takes root")
    options = ["-t", "tmpfs", "-o", f"size={mib}m", "tmpfs"]
    mounted = subprocess.run(["mount", *options, folder], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


class Ballast:
    """A file that takes all the space there is left."""

    def __init__(self, disk: Path) -> None:
        self._path = disk / "ballast"

    def grow(self) -> None:
        """Take what is free now; others go on writing meanwhile, and may get some of it."""
        with self._path.open("ab", buffering=0) as file:
            for piece in (1 << 20, 1 << 12):
                try:
                    while True:
                        file.write(b"x" * piece)
                except OSError:
                    continue  # it is full, or almost

    def drop(self) -> None:
        """Give it all back."""
        self._path.unlink()
