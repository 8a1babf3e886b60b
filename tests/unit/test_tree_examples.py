"""Revision trees by example: what CouchDB does, what arrives late, and what is refused."""

from __future__ import annotations

import pytest

from feeds.errors import BadRequest, NotFound
from feeds.revisions import Revision
from feeds.tree import (
    EMPTY,
    Node,
    Tree,
    conflicts,
    graft,
    history,
    leaves,
    lineage,
    merge,
    missing,
    ordered_leaves,
    possible_ancestors,
    stem,
    tree_of,
    winner,
)


def path(*revisions: str) -> tuple[Revision, ...]:
    return tuple(Revision.parse(text) for text in revisions)


def grown(*told: str) -> Tree:
    """The tree of histories written as `3-c 2-b 1-a`, with a `-` behind those that are deletions."""
    tree = EMPTY
    for text in told:
        revisions = text.removesuffix(" -").split()
        tree = graft(tree, path(*revisions), text.endswith(" -")).tree
    return tree


def texts(nodes: tuple[Node, ...]) -> list[str]:
    return [str(node.revision) for node in nodes]


def test_leaves_are_listed_as_couchdb_lists_them() -> None:
    heads = leaves(grown("1-aaaa", "2-bbbb 1-aaaa", "2-cccc 1-aaaa", "3-dddd 2-eeee 1-aaaa -"))
    assert texts(ordered_leaves(heads)) == ["2-cccc", "2-bbbb", "3-dddd"]
    assert str(winner(heads).revision) == "2-cccc"
    assert texts(conflicts(heads)) == ["2-bbbb"]


def test_generations_are_compared_as_numbers() -> None:
    assert str(winner(leaves(grown("9-z", "10-a"))).revision) == "10-a"


def test_digests_are_compared_by_their_bytes() -> None:
    assert str(winner(leaves(grown("1-\uffee", "1-\U0001f600", "1-z"))).revision) == "1-\U0001f600"


def test_of_tombstones_only_the_greatest_wins_and_none_is_a_conflict() -> None:
    heads = leaves(grown("2-a 1-a -", "2-b 1-a -"))
    assert str(winner(heads).revision) == "2-b"
    assert conflicts(heads) == ()


def test_an_empty_tree_has_no_leaves() -> None:
    assert leaves(EMPTY) == ()
    assert ordered_leaves(()) == ()


def test_unknown_ancestors_are_filled_in_as_missing() -> None:
    grafted = graft(grown("1-a"), path("3-c", "2-b", "1-a"), False)
    assert grafted.added == (Node(3, "c", "b"), Node(2, "b", "a", missing=True))
    assert not grafted.already
    assert texts(leaves(grafted.tree)) == ["3-c"]


def test_a_write_needs_to_name_only_its_parent() -> None:
    tree = grown("3-c 2-b 1-a")
    grafted = graft(tree, path("4-d", "3-c"), True)
    assert grafted.added == (Node(4, "d", "c", deleted=True),)
    assert grafted.healed == ()
    assert history(grafted.tree, Revision(4, "d")) == path("4-d", "3-c", "2-b", "1-a")


def test_a_tree_may_be_as_small_as_the_leaf_that_is_written_upon() -> None:
    grafted = graft(tree_of([Node(7, "g")]), path("8-h", "7-g"), False)
    assert texts(leaves(grafted.tree)) == ["8-h"]


def test_a_revision_told_without_its_history_is_linked_when_that_arrives() -> None:
    apart = grown("1-a", "3-c")
    assert len(leaves(apart)) == 2
    linked = graft(apart, path("3-c", "2-b", "1-a"), False)
    assert linked.already
    assert linked.added == (Node(2, "b", "a", missing=True),)
    assert linked.healed == (Node(3, "c", "b"),)
    assert texts(leaves(linked.tree)) == ["3-c"]


def test_the_body_of_a_missing_ancestor_may_arrive_late_and_makes_no_leaf() -> None:
    late = graft(grown("3-c 2-b 1-a"), path("2-b", "1-a"), False)
    assert not late.already
    assert late.added == ()
    assert late.healed == (Node(2, "b", "a"),)
    assert texts(leaves(late.tree)) == ["3-c"]


def test_a_tombstone_of_a_missing_ancestor_may_arrive_late_as_well() -> None:
    late = graft(grown("3-c 2-b 1-a"), path("2-b", "1-a"), True)
    assert late.healed == (Node(2, "b", "a", deleted=True),)


def test_of_two_contents_under_one_name_the_first_is_kept() -> None:
    live, gone = grown("2-b 1-a"), grown("2-b 1-a -")
    assert graft(live, path("2-b", "1-a"), True).tree is live
    assert graft(gone, path("2-b", "1-a"), False).tree is gone


def test_a_longer_history_links_a_known_tombstone_and_does_not_wake_it() -> None:
    assert graft(grown("2-b -"), path("2-b", "1-a"), False).healed == (Node(2, "b", "a", deleted=True),)


def test_of_two_parents_of_one_revision_every_replica_takes_the_greater() -> None:
    for told in (["2-b 1-a", "2-b 1-x"], ["2-b 1-x", "2-b 1-a"]):
        assert history(grown(*told), Revision(2, "b")) == path("2-b", "1-x")


def test_an_ancestor_that_only_a_contradicted_history_names_is_no_leaf() -> None:
    tree = grown("2-b 1-a", "2-b 1-x")
    assert (1, "a") in tree
    assert texts(leaves(tree)) == ["2-b"]


def test_grafting_leaves_the_given_tree_as_it_was() -> None:
    tree = grown("1-a")
    before = dict(tree)
    graft(tree, path("2-b", "1-a"), False)
    merge(tree, grown("2-c 1-a"))
    stem(grown("2-b 1-a"), 1)
    assert tree == before


@pytest.mark.parametrize("told", [(), ("3-c", "1-a"), ("2-b", "2-a"), ("1-a", "2-b"), ("2-b", "1-a", "1-x")])
def test_a_history_that_does_not_count_down_by_one_is_refused(told: tuple[str, ...]) -> None:
    with pytest.raises(BadRequest):
        graft(EMPTY, path(*told), False)


def test_a_history_below_the_first_generation_is_refused() -> None:
    with pytest.raises(BadRequest):
        graft(EMPTY, (Revision(1, "a"), Revision(0, "z")), False)


def test_an_ancestor_stays_while_a_branch_needs_it() -> None:
    tree = grown("6-f 5-e 4-d 3-c 2-b 1-a", "3-x 2-b 1-a")
    stemmed, removed = stem(tree, 2)
    assert sorted(stemmed) == [(2, "b"), (3, "x"), (5, "e"), (6, "f")]
    assert stemmed[2, "b"].parent is None
    assert stemmed[5, "e"].parent is None
    assert texts(removed) == ["4-d", "3-c", "1-a"]


def test_where_one_branch_ends_another_may_go_on() -> None:
    stemmed, removed = stem(grown("5-e 4-d 3-c 2-b 1-a", "4-x 3-c 2-b 1-a"), 3)
    assert texts(removed) == ["1-a"]
    assert stemmed[3, "c"].parent == "b"
    assert stemmed[2, "b"].parent is None


def test_a_tree_within_the_limit_is_left_as_it_is() -> None:
    tree = grown("3-c 2-b 1-a")
    assert stem(tree, 3) == (tree, ())
    assert stem(tree, 3)[0] is tree


@pytest.mark.parametrize("revs_limit", [0, -1])
def test_a_limit_that_would_drop_leaves_is_refused(revs_limit: int) -> None:
    with pytest.raises(BadRequest, match="revs_limit"):
        stem(grown("1-a"), revs_limit)


def test_a_branch_of_a_thousand_and_one_revisions_loses_one() -> None:
    long = tuple(Revision(n, f"{n:032x}") for n in range(1001, 0, -1))
    stemmed, removed = stem(graft(EMPTY, long, False).tree, 1000)
    assert texts(removed) == [str(long[-1])]
    assert history(stemmed, long[0]) == long[:-1]


def test_the_history_of_an_unknown_revision_is_not_found() -> None:
    with pytest.raises(NotFound, match="2-zzz"):
        history(grown("1-a"), Revision(2, "zzz"))


def test_an_ancestor_known_by_name_is_not_asked_for() -> None:
    tree = grown("3-c 2-b 1-a")
    assert missing(tree, path("2-b", "2-x", "4-d", "3-c")) == path("2-x", "4-d")


def test_possible_ancestors_are_the_older_leaves_winner_first() -> None:
    tree = grown("2-b 1-a -", "2-c 1-a", "5-e")
    assert possible_ancestors(tree, Revision(3, "x")) == path("2-c", "2-b")
    assert possible_ancestors(tree, Revision(2, "x")) == ()


def test_revisions_of_a_document_are_read_as_a_path() -> None:
    assert lineage(3, ["c", "b"]) == path("3-c", "2-b")


@pytest.mark.parametrize(("start", "digests"), [(3, []), (1, ["b", "a"]), (0, ["a"]), (2, ["b", "a b"]), (-1, [])])
def test_revisions_that_tell_no_path_are_refused(start: int, digests: list[str]) -> None:
    with pytest.raises(BadRequest):
        lineage(start, digests)
