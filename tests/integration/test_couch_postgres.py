"""CouchDB's protocol over a store on PostgreSQL: the walks through it that lean on the database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest
from databases import Databases

from . import test_couch_bounds as bounds
from . import test_couch_changes as changes
from . import test_couch_databases as lists
from . import test_couch_documents as documents
from . import test_couch_encodings as encodings
from . import test_couch_find as find
from . import test_couch_replicator as replicator
from .http_tools import Served, served

Walk = Callable[[Served], Awaitable[None]]

WALKS: Final[tuple[Walk, ...]] = (
    documents.test_a_document_is_written_read_and_deleted,
    documents.test_what_builds_on_no_leaf_is_a_conflict,
    documents.test_many_are_written_in_order_each_by_itself,
    documents.test_what_was_made_elsewhere_is_kept_as_it_is,
    documents.test_history_is_told_with_what_is_still_there,
    documents.test_latest_is_the_newest_leaf_that_descends_even_a_deleted_one,
    documents.test_many_are_read_in_the_order_asked_for,
    documents.test_what_is_not_here_is_told_by_revision,
    lists.test_every_living_document_is_listed_by_the_bytes_of_its_id,
    lists.test_a_list_begins_and_ends_where_it_is_told_to,
    lists.test_documents_are_asked_for_by_keys_and_come_in_that_order,
    lists.test_leaves_are_purged,
    lists.test_a_local_document_is_written_read_and_removed,
    changes.test_each_document_has_one_row_at_its_newest_change,
    changes.test_a_reader_goes_on_from_what_it_was_told,
    changes.test_rows_bring_their_documents,
    changes.test_rows_are_chosen_by_ids,
    changes.test_rows_are_chosen_by_a_selector,
    changes.test_a_continuous_answer_has_a_row_a_line,
    changes.test_a_long_poll_waits_for_what_its_filter_lets_through,
    encodings.test_many_are_read_each_with_what_came_since,
    find.test_found_documents_come_in_the_order_asked_for,
    find.test_definitions_of_indexes_are_kept_listed_and_forgotten,
)
REPLICATIONS: Final[tuple[Walk, ...]] = (
    replicator.test_conflicts_deletions_and_histories_come_over,
    replicator.test_ids_with_slashes_design_documents_and_odd_names_come_over,
    replicator.test_attachments_come_over_and_later_only_those_that_are_new,
    replicator.test_a_target_that_was_made_anew_is_filled_from_the_beginning,
)


@pytest.fixture
async def web(databases: Databases, tmp_path: Path) -> AsyncIterator[Served]:
    with databases.lent() as url:
        async with served(url, blobs=tmp_path) as running:
            yield running


async def test_a_database_is_walked_through(web: Served) -> None:
    """One after the other in one store, each in a database made anew."""
    for walk in WALKS:
        web.store.create("db")
        await walk(web)
        web.store.drop("db")


async def test_everything_is_replicated(web: Served) -> None:
    for walk in REPLICATIONS:
        web.store.create("one")
        await walk(web)
        for name in [barrel.name for barrel in web.store.barrels()]:
            web.store.drop(name)


def test_no_more_large_documents_are_read_together_than_fit(web: Served) -> None:
    bounds.test_no_more_large_documents_are_read_together_than_fit(web.store.create("db"))
