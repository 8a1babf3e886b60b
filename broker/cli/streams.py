"""The standard streams of this process, such that commands need not look what they were given."""

from __future__ import annotations

import io
import os
import sys

__all__ = ["make_usable"]


def make_usable() -> None:
    """Standard input and output are there, also where they were closed; reading waits, also where another program
    has set the pipe so that it does not; help shows what the terminal's encoding has no character for as `?`."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115 - as long as the process
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    os.set_blocking(sys.stdin.fileno(), True)
    os.set_blocking(sys.stdout.fileno(), True)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
