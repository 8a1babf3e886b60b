"""Every route of the face, below its prefix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from broker.couch import (
    attachments,
    bulk,
    changes,
    databases,
    documents,
    find,
    indexes,
    listing,
    local,
    replicate,
    replicator,
    replicator_changes,
    scheduler,
    server,
    session,
)
from broker.couch.cors import preflight
from broker.couch.face import Served, endpoint_of
from broker.couch.jobs import DATABASE
from broker.http.endpoint import Route
from broker.http.related import RELATED

PREFIX: Final = "/couch"

_REPLICATOR: Final = f"/{DATABASE}"

TABLE: Final = (
    Served("GET", "/", server.welcome),
    Served("GET", "/_up", server.up),
    Served("GET", "/_all_dbs", server.all_dbs),
    Served("GET", "/_dbs_info", server.dbs_info),
    Served("POST", "/_dbs_info", server.dbs_info),
    Served("GET", "/_uuids", server.uuids),
    Served("GET", "/_active_tasks", scheduler.active_tasks),
    Served("GET", "/_session", session.tell_session),
    Served("POST", "/_session", session.sign_in),
    Served("DELETE", "/_session", session.sign_out),
    Served("POST", "/_replicate", replicate.replicate),
    Served("GET", "/_scheduler/jobs", scheduler.list_jobs),
    Served("GET", "/_scheduler/jobs/{job}", scheduler.tell_job),
    Served("GET", "/_scheduler/docs", scheduler.list_docs),
    Served("GET", "/_scheduler/docs/_replicator", scheduler.list_docs),
    Served("GET", "/_scheduler/docs/_replicator/{id}", scheduler.tell_doc),
    Served("GET", _REPLICATOR, replicator.tell_replicator),
    Served("PUT", _REPLICATOR, replicator.make_replicator),
    Served("DELETE", _REPLICATOR, replicator.drop_replicator),
    Served("POST", _REPLICATOR, replicator.post_replication, writes=True),
    Served("GET", f"{_REPLICATOR}/_security", replicator.tell_security),
    Served("POST", f"{_REPLICATOR}/_bulk_docs", replicator.bulk_replications, writes=True),
    Served("GET", f"{_REPLICATOR}/_all_docs", replicator.list_replications),
    Served("POST", f"{_REPLICATOR}/_all_docs", replicator.list_replications),
    Served("GET", f"{_REPLICATOR}/_changes", replicator_changes.replicator_changes),
    Served("POST", f"{_REPLICATOR}/_changes", replicator_changes.replicator_changes),
    Served("GET", f"{_REPLICATOR}/{{id}}", replicator.get_replication),
    Served("PUT", f"{_REPLICATOR}/{{id}}", replicator.put_replication, writes=True),
    Served("DELETE", f"{_REPLICATOR}/{{id}}", replicator.delete_replication, writes=True),
    *(Served(method, f"{_REPLICATOR}/{{id}}", replicator.nothing_there) for method in ("POST", "COPY")),
    *(
        Served(method, f"{_REPLICATOR}/{{nothing...}}", replicator.nothing_there)
        for method in ("GET", "POST", "PUT", "DELETE", "COPY")
    ),
    Served("GET", "/{db}", databases.tell_database),
    Served("PUT", "/{db}", databases.create_database, writes=True),
    Served("DELETE", "/{db}", databases.drop_database, writes=True),
    Served("POST", "/{db}", documents.post_document, writes=True),
    Served("POST", "/{db}/_bulk_docs", bulk.bulk_docs, writes=True),
    Served("POST", "/{db}/_bulk_get", bulk.bulk_get),
    Served("POST", "/{db}/_revs_diff", bulk.revs_diff),
    Served("POST", "/{db}/_missing_revs", bulk.missing_revs),
    Served("GET", "/{db}/_changes", changes.changes),
    Served("POST", "/{db}/_changes", changes.changes),
    Served("GET", "/{db}/_all_docs", listing.all_docs),
    Served("POST", "/{db}/_all_docs", listing.all_docs),
    Served("GET", "/{db}/_design_docs", listing.design_docs),
    Served("POST", "/{db}/_design_docs", listing.design_docs),
    Served("GET", "/{db}/_local_docs", listing.local_docs),
    Served("POST", "/{db}/_local_docs", listing.local_docs),
    Served("POST", "/{db}/_find", find.find),
    Served("POST", "/{db}/_explain", find.explain),
    Served("GET", "/{db}/_index", indexes.list_indexes),
    Served("POST", "/{db}/_index", indexes.create_index, writes=True),
    Served("DELETE", "/{db}/_index/{index...}", indexes.delete_index, writes=True),
    Served("POST", "/{db}/_ensure_full_commit", databases.ensure_full_commit),
    Served("POST", "/{db}/_compact", databases.compact, writes=True),
    Served("POST", "/{db}/_compact/{view}", databases.compact, writes=True),
    Served("POST", "/{db}/_view_cleanup", databases.view_cleanup),
    Served("GET", "/{db}/_revs_limit", databases.tell_revs_limit),
    Served("PUT", "/{db}/_revs_limit", databases.set_revs_limit, writes=True),
    Served("GET", "/{db}/_purged_infos_limit", databases.tell_purge_limit),
    Served("GET", "/{db}/_security", databases.tell_security),
    Served("PUT", "/{db}/_security", databases.set_security, writes=True),
    Served("POST", "/{db}/_purge", databases.purge, writes=True),
    Served("POST", "/{db}/_temp_view", attachments.temporary_view),
    Served("POST", "/{db}/_design/{design}/{name...}", attachments.run_function),
    Served("GET", "/{db}/_local/{local...}", local.get_local),
    Served("PUT", "/{db}/_local/{local...}", local.put_local, writes=True),
    Served("DELETE", "/{db}/_local/{local...}", local.delete_local, writes=True),
    *(
        row
        for place in ("/{db}/{id}", "/{db}/_design/{design}")
        for row in (
            Served("GET", place, documents.get_document),
            Served("PUT", place, documents.put_document, writes=True, streams=RELATED),
            Served("DELETE", place, documents.delete_document, writes=True),
            Served("COPY", place, documents.copy_document, writes=True),
            Served("GET", place + "/{name...}", attachments.get_attachment),
            Served("PUT", place + "/{name...}", attachments.put_attachment, writes=True, streams=""),
            Served("DELETE", place + "/{name...}", attachments.delete_attachment, writes=True),
        )
    ),
)
_REST: Final = tuple(Served(method, "/{nothing...}", server.nowhere) for method in ("GET", "POST", "PUT", "DELETE"))


def couch_routes(prefix: str = PREFIX) -> list[Route]:
    """The routes below a prefix; at the root (``""``) without the one of the root itself, which is Spile's."""
    return list(_routes(prefix))


def _routes(prefix: str) -> Iterator[Route]:
    asked: set[str] = set()
    for row in (*TABLE, *(_REST if prefix else ())):  # at the root, Spile says what is not there
        for template in _templates(prefix, row.template):
            yield row.method, template, endpoint_of(row)
            if template not in asked:
                asked.add(template)
                yield "OPTIONS", template, endpoint_of(Served("OPTIONS", row.template, preflight))


def _templates(prefix: str, template: str) -> tuple[str, ...]:
    if template == "/":
        return (prefix, prefix + "/") if prefix else ()
    if template in ("/{db}", _REPLICATOR):
        return prefix + template, prefix + template + "/"  # CouchDB's replicator asks with the slash
    return (prefix + template,)
