"""`_active_tasks` and `_scheduler`: the replications of the service as CouchDB's users look at them."""

from __future__ import annotations

from typing import Any, Final

from broker.couch import jobs
from broker.couch.errors import CouchError, bad_request
from broker.couch.face import query_of
from broker.couch.query import Query
from broker.http.answers import Answer, json_answer
from broker.http.call import Call
from broker.http.replications import tasks_of
from feeds.errors import NotFound

_LIMIT: Final = 100


async def active_tasks(call: Call) -> Answer:
    """What is at work: replications, each direction by itself."""
    call.allow("admin")
    tasks = call.services.replications
    told = [] if tasks is None else await tasks.list()
    return json_answer([row for each in told for row in jobs.active_tasks(each)])


async def list_jobs(call: Call) -> Answer:
    """The replications that have not ended, by their ids."""
    call.allow("admin")
    told = [each for each in await tasks_of(call).list() if jobs.is_scheduled(each)]
    rows = [jobs.job(each) for each in sorted(told, key=lambda each: str(each["id"]))]
    return _page("jobs", rows, query_of(call))


async def tell_job(call: Call) -> Answer:
    """One of them."""
    call.allow("admin")
    told = await tasks_of(call).get(call.param("job"))
    if not jobs.is_scheduled(told):
        raise NotFound("This replication has ended")
    return json_answer(jobs.job(told))


async def list_docs(call: Call) -> Answer:
    """The documents of `_replicator`, those in `states` or all of them, by their ids."""
    call.allow("admin")
    query = query_of(call)
    states = _states(query)
    rows = [row for row in await _docs(call) if not states or row["state"] in states]
    return _page("docs", rows, query)


async def tell_doc(call: Call) -> Answer:
    """One of them."""
    call.allow("admin")
    id = call.param("id")
    row = next((row for row in await _docs(call) if row["doc_id"] == id), None)
    if row is None:
        raise CouchError(404, "not_found", "missing")
    return json_answer(row)


async def _docs(call: Call) -> list[dict[str, Any]]:
    tasks = tasks_of(call)
    described = [each for each in await tasks.ask(lambda register: register.after()) if not each.deleted]
    live = {each["id"]: each for each in await tasks.list()}
    rows = [jobs.scheduled_doc(each.id, live.get(each.stored.task) or each.told()) for each in described]
    return sorted(rows, key=lambda row: str(row["doc_id"]))


def _page(name: str, rows: list[dict[str, Any]], query: Query) -> Answer:
    limit, skip = query.number("limit"), query.number("skip") or 0
    shown = rows[skip : skip + (_LIMIT if limit is None else limit)]
    return json_answer({"total_rows": len(rows), "offset": min(skip, len(rows)), name: shown})


def _states(query: Query) -> set[str]:
    states = set(filter(None, (query.text("states") or "").split(",")))
    if states - jobs.STATES:
        raise bad_request(f"`states` may hold {', '.join(sorted(jobs.STATES))}")
    return states
