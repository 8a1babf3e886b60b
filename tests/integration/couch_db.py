"""The database that tests of CouchDB's face speak to, from its two sides."""

from __future__ import annotations

from feeds import Barrel

from .http_tools import Served

DB = "/couch/db"


def db(web: Served) -> Barrel:
    """The barrel that it is."""
    return web.store.barrel("db")
