"""Follows a barrel and prints what changes; goes on after a restart where it was.

    python examples/listen.py http://127.0.0.1:8000/places 'region/#' --name printer
    python examples/listen.py mqtt://127.0.0.1:1883/places --name printer

A change that cannot be handled is tried again; after three times it is kept in `dead-letters.ndjson`, and the
listener goes on.
"""

from __future__ import annotations

import argparse

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


def main() -> None:
    """Listen until there is nothing more to tell, or until Ctrl-C."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", help="http://HOST:PORT/BARREL, mqtt://HOST:PORT/BARREL or FOLDER#BARREL")
    parser.add_argument("patterns", nargs="*", help="paths to hear; none: everything")
    parser.add_argument("--name", help="keep the place under this name")
    parser.add_argument("--since", default="first", help="a position, first or now")
    parser.add_argument("--token", help="the service's token")
    parser.add_argument("--once", action="store_true", help="end when everything so far was told")
    asked = parser.parse_args()
    listener = Listener(
        asked.source,
        asked.patterns,
        told,
        name=asked.name,
        since=asked.since,
        follow=not asked.once,
        token=asked.token,
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
