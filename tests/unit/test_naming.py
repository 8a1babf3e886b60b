"""Ids that are made."""

from __future__ import annotations

import re
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

from feeds.body import check_id
from feeds.naming import new_id
from feeds.writes import Write


def test_an_id_is_a_uuid_of_version_7_in_hex() -> None:
    made = new_id()
    assert re.fullmatch(r"[0-9a-f]{32}", made) and check_id(made) == made
    assert uuid.UUID(made).version == 7
    assert abs(int(made[:12], 16) / 1000 - time.time()) < 5


def test_each_id_is_behind_the_one_before() -> None:
    made = [new_id() for _ in range(10_000)]
    assert made == sorted(set(made))


def test_threads_make_no_id_twice() -> None:
    with ThreadPoolExecutor(4) as pool:
        made = [id for ids in pool.map(lambda _: [new_id() for _ in range(5_000)], range(8)) for id in ids]
    assert len(set(made)) == 40_000


def test_a_document_without_an_id_gets_such_a_one() -> None:
    assert uuid.UUID(Write.put({}).id).version == 7
