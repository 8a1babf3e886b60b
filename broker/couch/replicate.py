"""`_replicate`: one replication, whose end is waited for; or one that goes on until it is cancelled.

What goes on is a task of the service like any other, and comes back after a restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from broker.couch import jobs
from broker.couch.asked_replication import flag, read_replication
from broker.couch.errors import CouchError, bad_request
from broker.couch.face import json_object
from broker.http.answers import Answer, json_answer
from broker.http.call import Call
from broker.http.errors import status_of
from broker.http.replications import ended, tasks_of
from broker.replication.task import Secrets, Task
from broker.replication.tasks import Tasks
from feeds.errors import Forbidden, NotFound, Unauthorized

ASKED_BYTES_MAX: Final = 1 << 20
_IDS: Final = ("replication_id", "_local_id", "id")


async def replicate(call: Call) -> Answer:
    """Replicate, and answer what was done; with `continuous` from now on, with `cancel` not any more."""
    call.allow("admin")
    tasks = tasks_of(call)
    body = await json_object(call, ASKED_BYTES_MAX)
    cancels = flag(body, "cancel")
    id = _id(body)
    if cancels and id is not None:
        return await _cancelled(tasks, id)
    asked = read_replication(body)
    if cancels:
        return await _cancelled(tasks, asked.task.id)
    if asked.task.continuous:
        told, _ = await tasks.create(asked.task, asked.secrets, call.who)
        return json_answer({"ok": True, "_local_id": told["id"]}, 202)
    return json_answer(await _done(call, tasks, asked.task, asked.secrets))


def _id(body: Mapping[str, Any]) -> str | None:
    id = next((body[name] for name in _IDS if body.get(name) is not None), None)
    if id is not None and not isinstance(id, str):
        raise bad_request("The id of a replication is a text.")
    return id


async def _cancelled(tasks: Tasks, id: str) -> Answer:
    try:
        await tasks.cancel(id)
    except NotFound as error:
        raise CouchError(404, "not_found", error.reason) from error
    return json_answer({"ok": True, "_local_id": id})


async def _done(call: Call, tasks: Tasks, task: Task, secrets: Secrets) -> dict[str, Any]:
    try:
        told = await ended(call, tasks, task, secrets)
    except NotFound as error:
        raise CouchError(404, "db_not_found", f"could not open {task}: {error.reason}") from error
    except (Unauthorized, Forbidden) as error:
        reason = f"unauthorized to access or create the databases of {task}: {error.reason}"
        raise CouchError(status_of(error), error.code, reason) from error
    if told["state"] != "done":
        raise CouchError(409, "cancelled", "The replication was cancelled before it came to its end.")
    return jobs.session(told)
