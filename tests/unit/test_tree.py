"""Laws of revision trees, against a slow model.

A world is a whole family of revisions as some all-knowing replica would have it. A telling is one revision
of it with as much of its history as the teller kept.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from functools import cmp_to_key

from hypothesis import given
from hypothesis import strategies as st

from feeds.revisions import Revision
from feeds.tree import (
    EMPTY,
    Key,
    Node,
    Tree,
    conflicts,
    graft,
    history,
    leaves,
    merge,
    missing,
    ordered_leaves,
    possible_ancestors,
    stem,
    tree_of,
    winner,
)

Telling = tuple[tuple[Revision, ...], bool]


def told(world: Sequence[tuple[Revision, int | None, bool]], at: int, depth: int) -> Telling:
    path: list[Revision] = []
    here: int | None = at
    while here is not None and len(path) < depth:
        path.append(world[here][0])
        here = world[here][1]
    return tuple(path), world[at][2]


@st.composite
def tellings(draw: st.DrawFn) -> list[Telling]:
    """Tellings of one honest world: a revision has one parent and is deleted or not, whoever tells it."""
    world: list[tuple[Revision, int | None, bool]] = []
    for at in range(draw(st.integers(1, 8))):
        # Near the newest, so that branches grow long enough to be stemmed.
        recent = draw(st.integers(max(-1, at - 3), at - 1))
        parent = recent if recent >= 0 else None
        generation = 1 if parent is None else world[parent][0].generation + 1
        digest = draw(st.sampled_from("abé")) + str(at)
        world.append((Revision(generation, digest), parent, draw(st.booleans())))
    picks = draw(st.lists(st.tuples(st.integers(0, len(world) - 1), st.integers(1, 9)), min_size=1, max_size=8))
    return [told(world, at, depth) for at, depth in picks]


@st.composite
def contradictions(draw: st.DrawFn) -> list[Telling]:
    """Tellings of liars: the same revision has other ancestors every time."""
    generations = draw(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=6))
    return [
        (
            tuple(Revision(generation - up, draw(st.sampled_from("ab"))) for up in range(min(generation, length))),
            False,
        )
        for generation, length in generations
    ]


def grown(told: Iterable[Telling]) -> Tree:
    tree = EMPTY
    for path, deleted in told:
        tree = graft(tree, path, deleted).tree
    return tree


# The model: everything that was ever told is a set of facts, and each question goes over all of them.


def model_tree(told: Sequence[Telling]) -> dict[Key, Node]:
    keys = {revision.key for path, _ in told for revision in path}
    parents = {
        key: [path[at + 1].digest for path, _ in told for at in range(len(path) - 1) if path[at].key == key]
        for key in keys
    }
    bodies = {key: [deleted for path, deleted in told if path[0].key == key] for key in keys}
    return {key: Node(*key, max(parents[key], default=None), any(bodies[key]), not bodies[key]) for key in keys}


def model_leaves(tree: Tree) -> set[Key]:
    return {
        node.key
        for node in tree.values()
        if not node.missing and all(other.parent_key != node.key for other in tree.values())
    }


def model_branch(tree: Tree, node: Node) -> list[Node]:
    above = [other for other in tree.values() if other.key == node.parent_key]
    return [node] + [further for other in above for further in model_branch(tree, other)]


def beats(a: Node, b: Node) -> int:
    if a.deleted != b.deleted:
        return 1 if b.deleted else -1
    if a.generation != b.generation:
        return a.generation - b.generation
    return 1 if a.digest.encode() > b.digest.encode() else -1


def keys(nodes: Iterable[Node]) -> set[Key]:
    return {node.key for node in nodes}


@given(tellings())
def test_a_tree_is_what_was_told(told: list[Telling]) -> None:
    tree = grown(told)
    assert tree == model_tree(told)
    assert keys(leaves(tree)) == model_leaves(tree)


@given(tellings() | contradictions(), st.randoms(use_true_random=False))
def test_order_of_grafting_does_not_matter(told: list[Telling], chance: random.Random) -> None:
    other = told.copy()
    chance.shuffle(other)
    assert grown(other) == grown(told)


@given(tellings() | contradictions())
def test_grafting_twice_changes_nothing(told: list[Telling]) -> None:
    tree = grown(told)
    for path, deleted in told:
        again = graft(tree, path, deleted)
        assert again.tree is tree
        assert (again.already, again.added, again.healed) == (True, (), ())


@given(tellings() | contradictions())
def test_a_graft_reports_exactly_what_it_changed(told: list[Telling]) -> None:
    before = grown(told[:-1])
    path, deleted = told[-1]
    grafted = graft(before, path, deleted)
    added = {node for key, node in grafted.tree.items() if key not in before}
    changed = {node for key, node in grafted.tree.items() if key in before and node != before[key]}
    assert (set(grafted.added), set(grafted.healed)) == (added, changed)
    known = before.get(path[0].key)
    assert grafted.already == (known is not None and not known.missing)


@given(tellings() | contradictions(), st.integers(0, 8))
def test_merging_is_grafting_what_the_other_was_told(told: list[Telling], cut: int) -> None:
    assert merge(grown(told[:cut]), grown(told[cut:])) == grown(told)


@given(tellings() | contradictions(), st.data())
def test_order_of_merging_does_not_matter(told: list[Telling], data: st.DataObject) -> None:
    a, b, c = (grown(data.draw(st.lists(st.sampled_from(told), max_size=4), label=name)) for name in ("a", "b", "c"))
    assert merge(a, b) == merge(b, a)
    assert merge(merge(a, b), c) == merge(a, merge(b, c))


@given(
    st.lists(
        st.builds(Node, st.just(2), st.just("x"), st.none() | st.sampled_from("ab"), st.booleans()),
        min_size=3,
        max_size=3,
    )
)
def test_order_of_merging_does_not_matter_where_peers_lie_about_content(nodes: list[Node]) -> None:
    a, b, c = (tree_of([node]) for node in nodes)
    assert merge(a, b) == merge(b, a)
    assert merge(merge(a, b), c) == merge(a, merge(b, c))


@given(tellings() | contradictions())
def test_merging_twice_changes_nothing(told: list[Telling]) -> None:
    tree = grown(told)
    assert merge(tree, tree) is tree
    assert merge(tree, grown(told[1:])) is tree
    assert merge(tree, EMPTY) is tree
    assert merge(EMPTY, tree) == tree


@given(tellings() | contradictions())
def test_every_tree_has_a_leaf_and_the_winner_beats_all_others(told: list[Telling]) -> None:
    heads = leaves(grown(told))
    expected = sorted(heads, key=cmp_to_key(beats), reverse=True)
    assert list(ordered_leaves(heads)) == expected
    assert winner(heads) == expected[0]
    assert list(conflicts(heads)) == [leaf for leaf in expected[1:] if not leaf.deleted]


@given(tellings())
def test_replicas_that_heard_the_same_agree_on_the_winner(told: list[Telling]) -> None:
    assert winner(leaves(grown(told))) == winner(leaves(grown(reversed(told))))


@given(tellings())
def test_the_histories_of_its_revisions_rebuild_a_tree(told: list[Telling]) -> None:
    tree = grown(told)
    assert grown((history(tree, n.revision), n.deleted) for n in tree.values() if not n.missing) == tree


@given(tellings())
def test_the_histories_of_its_leaves_rebuild_the_shape_and_the_winner(told: list[Telling]) -> None:
    tree = grown(told)
    rebuilt = grown((history(tree, leaf.revision), leaf.deleted) for leaf in leaves(tree))
    assert {key: node.parent for key, node in rebuilt.items()} == {key: node.parent for key, node in tree.items()}
    assert set(leaves(rebuilt)) == set(leaves(tree))


@given(tellings())
def test_history_is_the_branch_down_to_its_root(told: list[Telling]) -> None:
    tree = grown(told)
    for node in tree.values():
        assert history(tree, node.revision) == tuple(other.revision for other in model_branch(tree, node))


both = tellings() | contradictions()
limits = st.integers(1, 5)


@given(both, limits)
def test_stemming_never_changes_leaves_or_winner(told: list[Telling], revs_limit: int) -> None:
    tree = grown(told)
    stemmed, _ = stem(tree, revs_limit)
    heads, still = leaves(tree), leaves(stemmed)
    assert keys(still) == keys(heads)
    assert winner(still).key == winner(heads).key
    assert keys(conflicts(still)) == keys(conflicts(heads))


@given(tellings(), limits)
def test_stemming_keeps_what_is_near_a_leaf_and_nothing_else(told: list[Telling], revs_limit: int) -> None:
    tree = grown(told)
    near = {key for leaf in leaves(tree) for key in keys(model_branch(tree, leaf)[:revs_limit])}
    stemmed, removed = stem(tree, revs_limit)
    assert stemmed.keys() == near
    assert set(removed) == {node for key, node in tree.items() if key not in near}
    for key, node in stemmed.items():
        expected = tree[key]
        assert (node.deleted, node.missing) == (expected.deleted, expected.missing)
        assert node.parent == (expected.parent if expected.parent_key in near else None)


@given(both, limits)
def test_stemming_twice_changes_nothing(told: list[Telling], revs_limit: int) -> None:
    stemmed, _ = stem(grown(told), revs_limit)
    again, removed = stem(stemmed, revs_limit)
    assert removed == ()
    assert again is stemmed


@given(tellings(), limits)
def test_a_stemmed_tree_that_hears_everything_again_is_whole_again(told: list[Telling], revs_limit: int) -> None:
    tree = grown(told)
    stemmed, _ = stem(tree, revs_limit)
    assert merge(stemmed, tree) == tree
    assert stem(merge(stemmed, tree), revs_limit)[0] == stemmed


@given(tellings(), st.integers(0, 8), limits)
def test_stemming_before_a_merge_loses_no_leaf(told: list[Telling], cut: int, revs_limit: int) -> None:
    """It may make one look like a leaf again whose descendant has forgotten it, as in CouchDB."""
    a, b = grown(told[:cut]), grown(told[cut:])
    merged = merge(stem(a, revs_limit)[0], stem(b, revs_limit)[0])
    assert keys(leaves(merged)) >= keys(leaves(merge(a, b)))


@given(tellings(), tellings())
def test_missing_is_what_the_other_has_and_this_tree_has_not(mine: list[Telling], other: list[Telling]) -> None:
    tree = grown(mine)
    asked = [path[0] for path, _ in other]
    lacking = missing(tree, asked)
    assert list(lacking) == [revision for revision in asked if revision.key not in model_tree(mine)]
    for revision in lacking:
        older = {leaf for leaf in leaves(tree) if leaf.generation < revision.generation}
        assert {ancestor.key for ancestor in possible_ancestors(tree, revision)} == keys(older)
