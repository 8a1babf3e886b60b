"""Replications as CouchDB's users see them at work: rows of `_active_tasks` and of `_scheduler`. Pure.

Made of what `/replications` tells. The names of a process and of a run of CouchDB's are those of Spile's processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from email.utils import format_datetime
from typing import Any, Final

DATABASE: Final = "_replicator"
VERSION: Final = 4
"""Of the way in which CouchDB works out ids of replications; its clients look for a number."""

_STATES: Final = {
    "starting": "initializing",
    "running": "running",
    "idle": "running",
    "waiting": "crashing",
    "paused": "pending",
    "stopped": "pending",
    "done": "completed",
    "failed": "failed",
}
STATES: Final = frozenset(_STATES.values())
_SCHEDULED: Final = STATES - {"completed", "failed"}
_ACTIVE: Final = ("running", "idle", "waiting")


def state_of(told: Mapping[str, Any]) -> str:
    """A task's state by CouchDB's name."""
    return _STATES.get(told["state"], "pending")


def is_scheduled(told: Mapping[str, Any]) -> bool:
    """Whether there is a job for a task: it has not ended."""
    return state_of(told) in _SCHEDULED


def stats_of(told: Mapping[str, Any]) -> dict[str, Any]:
    """How far a task is."""
    progress = told["progress"]
    position = told["directions"][0]["position"] if told["directions"] else None  # before anything was heard of it
    return {
        "revisions_checked": progress["read"],
        "missing_revisions_found": progress["missing"],
        "docs_read": progress["fetched"],
        "docs_written": progress["written"],
        "doc_write_failures": progress["refused"],
        "changes_pending": progress["behind"],
        "checkpointed_source_seq": position,
        "source_seq": position,
        "through_seq": position,
    }


def active_tasks(told: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each direction of a task that is at work."""
    if told["state"] not in _ACTIVE:
        return []
    _, pid = _process(told)
    started = _moment(told["created"])
    updated = _moment(told["told_at"] or told["since"])
    return [
        {
            "type": "replication",
            "pid": pid,
            "node": _process(told)[0],
            "replication_id": told["id"],
            "database": DATABASE if told["document"] else None,
            "doc_id": told["document"],
            "source": each["source"],
            "target": each["target"],
            "user": told["created_by"],
            "continuous": told["continuous"],
            "started_on": int(started.timestamp()),
            "updated_on": int(updated.timestamp()),
            **stats_of({"progress": each, "directions": [each]}),
        }
        for each in told["directions"]
    ]


def job(told: Mapping[str, Any]) -> dict[str, Any]:
    """A task as a row of `_scheduler/jobs`."""
    node, pid = _process(told)
    added = told["created"]
    history = [{"timestamp": iso(added), "type": "added"}]
    if told["state"] in _ACTIVE:
        history.insert(0, {"timestamp": iso(told["since"]), "type": "started"})
    if state_of(told) == "crashing":
        crashed = {"timestamp": iso(told["since"]), "type": "crashed", "reason": told["reason"]}
        history.insert(0, crashed)
    return {
        "id": told["id"],
        "database": DATABASE if told["document"] else None,
        "doc_id": told["document"],
        "pid": pid,
        "node": node,
        "source": told["source"],
        "target": told["target"],
        "user": told["created_by"],
        "start_time": iso(added),
        "info": stats_of(told),
        "history": history,
    }


def scheduled_doc(id: str, told: Mapping[str, Any]) -> dict[str, Any]:
    """A document as a row of `_scheduler/docs`, with the task that it describes."""
    state = state_of(told)
    return {
        "database": DATABASE,
        "doc_id": id,
        "id": told["id"],
        "node": _process(told)[0],
        "source": told["source"],
        "target": told["target"],
        "state": state,
        "info": {"error": told["reason"]} if state in ("crashing", "failed") else stats_of(told),
        "error_count": max(told["progress"]["retries"], int(state == "crashing")),
        "start_time": iso(told["created"]),
        "last_updated": iso(told["since"]),
        "source_proxy": None,
        "target_proxy": None,
    }


def session(told: Mapping[str, Any]) -> dict[str, Any]:
    """What a replication that has come to its end did, as `_replicate` answers it."""
    direction = told["directions"][0]
    last = direction["position"] or "0"
    record = {
        "session_id": direction["session"],
        "start_time": _http_date(told["created"]),
        "end_time": _http_date(told["since"]),
        "start_last_seq": direction["began"] or 0,
        "end_last_seq": last,
        "recorded_seq": last,
        "missing_checked": direction["read"],
        "missing_found": direction["missing"],
        "docs_read": direction["fetched"],
        "docs_written": direction["written"],
        "doc_write_failures": direction["refused"],
    }
    return {
        "ok": True,
        **({} if direction["read"] else {"no_changes": True}),
        "session_id": direction["session"],
        "source_last_seq": last,
        "replication_id_version": VERSION,
        "history": [record],
    }


def iso(moment: str) -> str:
    """A time as CouchDB writes it: whole seconds."""
    return moment[:19] + "Z"


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _http_date(text: str) -> str:
    return format_datetime(_moment(text), usegmt=True)


def _process(told: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Host and number of the process that runs a task."""
    host, _, number = (told["runs_at"] or "").rpartition(":")
    return (host or None, number or None)
