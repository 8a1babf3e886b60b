"""Replications that the service runs: creating, listing, pausing, resuming and cancelling them.

They are the operator's: whoever may have the service read from and write to anywhere is an administrator of it.
"""

from __future__ import annotations

from typing import Any

from broker.http.answers import Answer, json_answer
from broker.http.call import Call
from broker.http.endpoint import route
from broker.http.presence import while_there
from broker.replication.task import Asked, Secrets, Task, task_of
from broker.replication.tasks import Tasks
from feeds.errors import Unavailable

_PLACE = "/replications/{replication}"


async def create(call: Call) -> Answer:
    """Have it run from now on; with `wait` once, and answer when it has ended."""
    call.allow("admin")
    tasks = tasks_of(call)
    wait = call.options().flag("wait")
    task, secrets = task_of(await call.json(Asked))
    if wait:
        return json_answer(await ended(call, tasks, task, secrets))
    told, made = await tasks.create(task, secrets, call.who)
    return json_answer(told, 201 if made else 200)


async def list_all(call: Call) -> Answer:
    """Every one, the oldest first."""
    call.allow("admin")
    return json_answer({"replications": await tasks_of(call).list()})


async def get(call: Call) -> Answer:
    """How one stands."""
    call.allow("admin")
    return json_answer(await tasks_of(call).get(call.param("replication")))


async def pause(call: Call) -> Answer:
    """Let it rest."""
    call.allow("admin")
    return json_answer(await tasks_of(call).pause(call.param("replication")))


async def resume(call: Call) -> Answer:
    """Have it run: at once where it waits, again where it has ended."""
    call.allow("admin")
    return json_answer(await tasks_of(call).resume(call.param("replication")))


async def cancel(call: Call) -> Answer:
    """Forget it; how it stood."""
    call.allow("admin")
    return json_answer(await tasks_of(call).cancel(call.param("replication")))


async def ended(call: Call, tasks: Tasks, task: Task, secrets: Secrets) -> dict[str, Any]:
    """Replicate once, as long as the client waits for it."""
    return await while_there(call, tasks.run(task, secrets, call.who), "spile-http-replication")


def tasks_of(call: Call) -> Tasks:
    tasks = call.services.replications
    if tasks is None:
        raise Unavailable("This service runs no replications.")
    return tasks


ROUTES = [
    route("POST", "/replications", "create_replication", create, ("wait",)),
    route("GET", "/replications", "list_replications", list_all),
    route("GET", _PLACE, "get_replication", get),
    route("DELETE", _PLACE, "cancel_replication", cancel),
    route("POST", f"{_PLACE}/pause", "pause_replication", pause),
    route("POST", f"{_PLACE}/resume", "resume_replication", resume),
]
