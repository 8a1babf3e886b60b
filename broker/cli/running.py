"""Running a command for each change, until it succeeds or is given up."""

from __future__ import annotations

import os
import shlex
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import tenacity

from feeds.errors import BadRequest, SpileError

__all__ = ["ChangeCommand", "CommandFailed"]

WAIT_S_MAX = 30.0


class _Told(msgspec.Struct):
    """What the environment tells of a change."""

    id: str
    rev: str
    seq: int
    paths: tuple[str, ...] = ()


_read = msgspec.json.Decoder(_Told).decode


class CommandFailed(SpileError):
    """The command failed for a change, as often as it was tried."""

    code = "error"
    hint = (
        "What came before is acknowledged. Mend the command and start again with the same --name, "
        "or keep such changes aside with --dead-letters FILE."
    )


class ChangeCommand:
    """A command that is run once for each change, in order, one at a time.

    It gets the change as JSON on standard input, and SPILE_BARREL, SPILE_ID, SPILE_REV, SPILE_SEQ and SPILE_PATH
    (the first path that matched, empty without patterns) in its environment. Exit code 0 is success.
    """

    def __init__(
        self, command: str, *, barrel: str, attempts: int, wait: float = 0.5, dead_letters: Path | None = None
    ) -> None:
        """`attempts` tries, with waits that grow from `wait` seconds; a change that fails them all is appended to
        the file `dead_letters` as a JSON line, or else raised. Raises BadRequest for what is no command."""
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise BadRequest(f"{command!r} cannot be read as a command: {error}", hint="Check its quotes.") from error
        if not self._words:
            raise BadRequest("the command is empty", hint="Name a program, as in --exec 'python handle.py'.")
        if dead_letters is not None:
            _appended(dead_letters, b"")  # what cannot be kept aside is better known before than after
        self._command = command
        self._barrel = barrel
        self._attempts = attempts
        self._wait = wait
        self._dead_letters = dead_letters
        self.set_aside = 0

    def run(self, raw: bytes) -> None:
        """Run it for this change, given as JSON. Raises CommandFailed after the last attempt, if it is not to be
        kept aside; BadRequest where the program cannot be run at all."""
        change = _read(raw)
        try:
            for attempt in tenacity.Retrying(
                stop=tenacity.stop_after_attempt(self._attempts),
                wait=tenacity.wait_random_exponential(multiplier=self._wait, max=WAIT_S_MAX),
                retry=tenacity.retry_if_exception_type(CommandFailed),
                reraise=True,
            ):
                with attempt:
                    self._run_once(change, raw)
        except CommandFailed as error:
            if self._dead_letters is None:
                raise
            self._keep(raw, error)

    def _run_once(self, change: _Told, raw: bytes) -> None:
        told = {
            "SPILE_BARREL": self._barrel,
            "SPILE_ID": change.id,
            "SPILE_REV": change.rev,
            "SPILE_SEQ": str(change.seq),
            "SPILE_PATH": change.paths[0] if change.paths else "",
        }
        try:
            done = subprocess.run(self._words, input=raw + b"\n", env={**os.environ, **told}, check=False)
        except OSError as error:
            hint = "Check the path and that it may be executed; a shell is not involved (use sh -c '…')."
            raise BadRequest(f"{self._words[0]} cannot be run: {error.strerror}", hint=hint) from error
        if done.returncode != 0:
            how = f"exit code {done.returncode}" if done.returncode > 0 else f"signal {-done.returncode}"
            raise CommandFailed(f"the command ended with {how} for {change.id} at {change.seq} ({self._command})")

    def _keep(self, raw: bytes, error: CommandFailed) -> None:
        """Append the change to the file, and be sure of it before it is acknowledged."""
        assert self._dead_letters is not None
        line = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "barrel": self._barrel,
            "reason": error.reason,
            "change": msgspec.Raw(raw),
        }
        _appended(self._dead_letters, msgspec.json.encode(line) + b"\n")
        self.set_aside += 1


def _appended(path: Path, data: bytes) -> None:
    """Append to a file that is made where it is missing, and be sure of it."""
    try:
        with path.open("ab") as file:
            file.write(data)
            file.flush()
            if path.is_file():
                os.fsync(file.fileno())
    except OSError as error:
        raise BadRequest(
            f"changes cannot be kept aside in {path}: {error.strerror}",
            hint="Check the path, its rights and its disk.",
        ) from error
