"""Follows a barrel and prints what changes; goes on after a restart where it was.

    python examples/listen.py http://127.0.0.1:8000/places 'region/#' --name printer
    python examples/listen.py mqtt://127.0.0.1:1883/places --name printer
    MQTT_PASSWORD=… python examples/listen.py mqtt://printer@broker:1883/places --name printer

A change that cannot be handled is tried again; after three times it is kept in `dead-letters.ndjson`, and the
listener goes on.
"""

from __future__ import annotations

import argparse
import os
import signal
from urllib.parse import quote

from feeds import SpileError
from listeners import Change, Listener, Retries, Snapshot


def told(change: Change) -> None:
    """What is done with a change: here it is printed. Raise, and it is told again."""
    if change.deleted:
        what = "deleted"
    elif change.removed:
        what = "left"
    elif change.entered:
        what = "came"
    else:
        what = "changed"
    name = (change.doc or {}).get("name", "")
    print(f"{change.position}  {what:<8}{change.id}  {name}  {' '.join(change.paths)}".rstrip(), flush=True)


def begun_anew(snapshot: Snapshot) -> None:
    """The position does not hold any more: everything there is follows, and what does not come is gone."""
    print(f"{snapshot.position}  everything again", flush=True)


def with_password(source: str, password: str | None) -> str:
    """The source with its user's password, which does not stand on a command line, where others could read it."""
    login, at, place = source.rpartition("@")
    return f"{login}:{quote(password, safe='')}@{place}" if at and password else source


def main() -> None:
    """Listen until there is nothing more to tell, or until Ctrl-C."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", help="http://HOST:PORT/BARREL, mqtt://[USER@]HOST:PORT/BARREL or FOLDER#BARREL")
    parser.add_argument("patterns", nargs="*", help="paths to hear; none: everything")
    parser.add_argument("--name", help="keep the place under this name")
    parser.add_argument("--since", default="first", help="a position, first or now")
    parser.add_argument("--once", action="store_true", help="end when everything so far was told")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # containers are stopped with it: the same as Ctrl-C
    listener = Listener(
        with_password(asked.source, os.environ.get("MQTT_PASSWORD")),
        asked.patterns,
        told,
        name=asked.name,
        since=asked.since,
        follow=not asked.once,
        token=os.environ.get("SPILE_TOKEN"),
        retries=Retries(attempts=3, first_s=0.5),
        on_error="dead_letter",
        dead_letters="dead-letters.ndjson",
        on_snapshot_start=begun_anew,
    )
    try:
        listener.run()
    except KeyboardInterrupt:
        listener.stop()
    except SpileError as error:
        raise SystemExit(f"{error.reason.rstrip('.')}. {error.hint}") from error


if __name__ == "__main__":
    main()
