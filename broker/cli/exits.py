"""What the command line's exit code says, and how an error reads on standard error."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from feeds.errors import SpileError

__all__ = [
    "DONE",
    "EXIT_CODES",
    "EXIT_MEANINGS",
    "INTERRUPTED",
    "NO_SERVICE",
    "PIPE_CLOSED",
    "REFUSED",
    "OutputFailed",
    "PipeClosed",
    "exit_code",
    "report",
    "with_code",
]

DONE = 0
REFUSED = 1
WRONG_USE = 2
NO_SERVICE = 3
INTERRUPTED = 130
PIPE_CLOSED = 141

EXIT_MEANINGS = "0 done, 1 refused or not found, 2 wrong use, 3 no service or store can answer now, 130 interrupted"

EXIT_CODES = {
    "error": REFUSED,
    "bad_request": REFUSED,
    "forbidden": REFUSED,
    "unauthorized": REFUSED,
    "not_found": REFUSED,
    "exists": REFUSED,
    "conflict": REFUSED,
    "precondition_failed": REFUSED,
    "missing_stub": REFUSED,
    "token_reused": REFUSED,
    "too_large": REFUSED,
    "epoch_changed": REFUSED,
    "storage_full": REFUSED,
    "newer_schema": REFUSED,
    "damaged": REFUSED,
    "written": REFUSED,
    "trimmed": REFUSED,
    "not_written": REFUSED,
    "partial_read": REFUSED,
    "bad_checksum": REFUSED,
    "bad_epoch": REFUSED,
    "overloaded": NO_SERVICE,
    "rate_limited": NO_SERVICE,
    "unavailable": NO_SERVICE,
    "store_locked": NO_SERVICE,
    "timeout": NO_SERVICE,
}
"""By the code of an error. Wrong use of the command line itself is found before anything is asked, and is 2."""


class PipeClosed(Exception):
    """Whoever read the output has gone; there is nothing to say, and nobody to say it to."""


class OutputFailed(Exception):
    """The output cannot be written, as to a full disk; the text says why."""


def exit_code(error: SpileError) -> int:
    """The exit code for an error; one whose code is not known is a refusal."""
    return EXIT_CODES.get(error.code, REFUSED)


def with_code(reason: str, code: str) -> str:
    """Why something was refused, and the stable code that a program can look for at the end of the line."""
    return f"{reason.removesuffix('.')} [{code}]"


def report(error: SpileError) -> None:
    """Say on standard error what was refused, and what to do."""
    print(f"spile: {with_code(error.reason, error.code)}", file=sys.stderr)
    if error.hint:
        print(f"  hint: {error.hint}", file=sys.stderr)
