"""Documents in the order of their ids, their leaves, and the newest revision that descends from another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from feeds import Barrel, Document, Store
from feeds.attachments.given import Given
from feeds.errors import SpileError
from feeds.storage.ids import JUST_BEHIND, LAST
from feeds.storage.listing import count_documents, find_documents, leaves_of, list_documents, read_some
from feeds.storage.reading import Wanted
from feeds.writes import Write

TREE: list[dict[str, Any]] = [
    {"_id": "doc", "_rev": "2-bb", "_revisions": {"start": 2, "ids": ["bb", "aa"]}},
    {"_id": "doc", "_rev": "3-cc", "_revisions": {"start": 3, "ids": ["cc", "2c", "aa"]}},
    {"_id": "doc", "_rev": "4-dd", "_revisions": {"start": 4, "ids": ["dd", "3d", "2c", "aa"]}, "_deleted": True},
]


@pytest.fixture
def barrel(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Barrel]:
    with Store.open(database_url, blobs=tmp_path_factory.mktemp("blobs")) as store:
        yield store.create("b")


def read(barrel: Barrel, **wanted: Any) -> Document | SpileError:
    (found,) = barrel.read([Wanted("doc", **wanted)])
    return found


def test_documents_are_listed_in_the_byte_order_of_their_ids_page_by_page(barrel: Barrel) -> None:
    ids = ["a", "B", "ä", "z/1", "10", "9", "😀", "\uffee"]
    barrel.bulk([{"_id": id} for id in ids])
    inorder = sorted(ids, key=str.encode)
    page = list_documents(barrel, limit=3)
    assert ([each.id for each in page.documents], page.more) == (inorder[:3], True)
    rest = list_documents(barrel, low=inorder[2] + JUST_BEHIND)
    assert ([each.id for each in rest.documents], rest.more) == (inorder[3:], False)
    back = list_documents(barrel, high=inorder[4], descending=True)
    assert [each.id for each in back.documents] == inorder[:4][::-1]


def test_deleted_documents_are_listed_as_such_and_not_counted(barrel: Barrel) -> None:
    barrel.bulk([{"_id": id} for id in "abc"])
    barrel.delete("b", rev=barrel.get("b").rev)
    assert [each.deleted for each in list_documents(barrel).documents] == [False, True, False]
    counts = [count_documents(barrel, *span, most=3) for span in (("", LAST), ("b", LAST), ("", "a"))]
    assert counts == [2, 1, 0]


def test_no_more_documents_are_counted_than_a_bound(barrel: Barrel) -> None:
    barrel.bulk([{"_id": id} for id in "abc"])
    barrel.delete("b", rev=barrel.get("b").rev)
    assert [count_documents(barrel, "", "c", most=most) for most in (1, 2, 3)] == [None, 1, 1]


def test_no_more_documents_are_read_together_than_reach_so_many_bytes(barrel: Barrel) -> None:
    sizes = {"a": 100, "b": 100, "c": 50_000, "d": 10, "e": 30_000}
    barrel.bulk([{"_id": id, "x": "x" * size} for id, size in sizes.items()])
    before = barrel.get("e").rev
    barrel.put({"_id": "e", "_rev": before, "x": ""})
    wanted = [*map(Wanted, ("never", *"abcd")), Wanted("e", before, revs=True), Wanted("e"), Wanted("d")]
    for bytes_max, count in ((1, 2), (150, 3), (1_000, 4), (60_000, 6), (1 << 20, 8)):
        found = read_some(barrel, wanted, bytes_max)
        assert len(found) == count
        assert [each for each in found if isinstance(each, Document)] == barrel.read(wanted)[1:count]


def test_documents_are_found_by_their_ids(barrel: Barrel) -> None:
    rev = barrel.put({"_id": "a"}).rev
    found = find_documents(barrel, ["a", "never"])
    assert {id: (each.rev, each.deleted) for id, each in found.items()} == {"a": (rev, False)}


def test_every_leaf_is_told_with_the_winner_first(barrel: Barrel) -> None:
    barrel.bulk(TREE, new_edits=False)
    leaves = leaves_of(barrel, ["doc", "never"])
    assert [(str(leaf.revision), leaf.deleted) for leaf in leaves["doc"]] == [
        ("3-cc", False),
        ("2-bb", False),
        ("4-dd", True),
    ]
    assert list(leaves) == ["doc"]


@pytest.mark.parametrize(
    ("rev", "newest"),
    [("2-bb", "2-bb"), ("3-cc", "3-cc"), ("4-dd", "4-dd"), ("3-3d", "4-dd"), ("2-2c", "4-dd"), ("1-aa", "4-dd")],
)
def test_the_newest_leaf_that_descends_is_read_even_a_deleted_one(barrel: Barrel, rev: str, newest: str) -> None:
    barrel.bulk(TREE, new_edits=False)
    found = read(barrel, rev=rev, latest=True)
    assert isinstance(found, Document)
    assert found.rev == newest


def test_a_revision_that_is_not_known_has_none_that_descends(barrel: Barrel) -> None:
    barrel.bulk(TREE, new_edits=False)
    assert isinstance(read(barrel, rev="1-zz", latest=True), SpileError)


def test_deleted_leaves_are_told_beside_the_one_that_is_read(barrel: Barrel) -> None:
    barrel.bulk(TREE, new_edits=False)
    found = read(barrel, conflicts=True, deleted_conflicts=True)
    assert isinstance(found, Document)
    assert found.extra == {"_conflicts": ["2-bb"], "_deleted_conflicts": ["4-dd"]}
    itself = read(barrel, rev="4-dd", deleted_conflicts=True)
    assert isinstance(itself, Document)
    assert itself.extra == {}


def test_a_replicated_stub_names_what_the_nearest_ancestor_that_is_here_has(barrel: Barrel) -> None:
    first = barrel.attach("doc", "a.txt", b"hello").rev
    history = {"start": 3, "ids": ["x", "y", first.partition("-")[2]]}
    stub = {"a.txt": {"stub": True, "revpos": 1}}
    later = Write.replicate({"_id": "doc", "_rev": "3-x", "_revisions": history, "_attachments": stub})
    assert later.attachments == {"a.txt": Given(revpos=1)}
    barrel.write(later)
    assert barrel.attachment("doc", "a.txt", rev="3-x").bytes() == b"hello"
