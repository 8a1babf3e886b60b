"""The CouchDB protocol: what CouchDB and PouchDB replicators call, over the same barrels.

A face: it translates requests, answers and errors, and keeps nothing of its own. Documents, revisions and changes are
those of `feeds`; bodies, limits and live feeds go the way of `broker.http`. See docs/concepts/couchdb.md.
"""

from broker.couch.table import couch_routes

__all__ = ["couch_routes"]
