"""Where the log goes and what a line of it looks like; what is logged is each part's own affair.

Every logger of Spile stands under `spile`. Libraries are heard from WARNING on.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Literal, TextIO

import msgspec

__all__ = ["LogFormat", "LogLevel", "set_up_logging"]

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

_HANDLER_NAME = "spile"
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def set_up_logging(level: LogLevel = "info", form: LogFormat = "text", stream: TextIO | None = None) -> None:
    """Send the log to `stream` (default: standard error), replacing an earlier set-up.

    `level` holds for the loggers under `spile`; other libraries are told from WARNING on, so that
    `debug` stays readable. Whatever a call gives as `extra=` becomes fields of a JSON line, and
    ` name=value` at the end of a text line.
    """
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.set_name(_HANDLER_NAME)
    handler.setFormatter(_JsonLines() if form == "json" else _TextLines())
    root = logging.getLogger()
    for earlier in [known for known in root.handlers if known.get_name() == _HANDLER_NAME]:
        root.removeHandler(earlier)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("spile").setLevel(level.upper())
    logging.captureWarnings(True)


def _time_of(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _extra_fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD_FIELDS}


class _TextLines(logging.Formatter):
    """`2024-05-01T12:00:00.123Z INFO spile.http: message name=value`, and a trace below if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={value}" for name, value in _extra_fields(record).items())
        message = record.getMessage().replace("\n", "\n  ")
        line = f"{_time_of(record)} {record.levelname} {record.name}: {message}{fields}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class _JsonLines(logging.Formatter):
    """One JSON object a line: `{at, level, logger, message, …extra fields, trace?}`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "at": _time_of(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_extra_fields(record),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()
