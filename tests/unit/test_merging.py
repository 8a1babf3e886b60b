"""The laws of merge rules: what stands in the end depends on the leaves alone, and merging comes to rest."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feeds.attachments.stubs import Stub
from feeds.barrels import BarrelSettings
from feeds.body import canonical
from feeds.errors import BadRequest, Exists
from feeds.merging import LiveLeaf, Rule, Settlement, Unsettled, fields, function_rule, newest, settle
from feeds.merging.functions import Merging
from feeds.merging.rules import attachments_of
from feeds.revisions import Revision, next_revision
from feeds.tree import EMPTY, Tree, graft, leaves, merge

BYTES_MAX = 1 << 20

scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([1.0, 2.5, -0.5]) | st.sampled_from("ab")
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=2)
)
stubs = st.dictionaries(
    st.sampled_from(["photo", "map"]),
    st.builds(
        lambda digit, revpos: Stub(
            content_type="a/b", digest="sha256-" + digit * 64, length=1, revpos=revpos, stub=True
        ),
        st.sampled_from("01"),
        st.integers(1, 3),
    ),
    max_size=2,
)
contents = st.tuples(st.dictionaries(st.sampled_from(["at", "k", "l"]), values, max_size=3), stubs)


def leaf(data: dict[str, Any], attached: dict[str, Stub] | None = None, rev: str | None = None) -> LiveLeaf:
    text = canonical(data)
    revision = Revision.parse(rev) if rev is not None else next_revision(None, False, text)
    return LiveLeaf(text, attached or {}, revision)


def merged_meaning(rule: Rule, given: Sequence[LiveLeaf]) -> Any:
    merged = rule(given)
    assert merged is not None
    return merged.meaning


# -- the rules as joins


@pytest.mark.parametrize("rule", [newest("at"), fields], ids=["newest", "fields"])
@given(given_contents=st.lists(contents, min_size=2, max_size=4))
def test_the_order_of_leaves_and_of_merging_does_not_matter(rule: Rule, given_contents: list[Any]) -> None:
    made = [leaf(data, attached, f"{number + 1}-{number}") for number, (data, attached) in enumerate(given_contents)]
    whole = merged_meaning(rule, made)
    for order in permutations(made):
        assert merged_meaning(rule, order) == whole
        stepwise = order[0]
        for each in order[1:]:
            merged = rule([stepwise, each])
            assert merged is not None
            stepwise = LiveLeaf(merged.text, merged.attachments, stepwise.revision)
        assert stepwise.meaning == whole
        assert all(merged_meaning(rule, [stepwise, each]) == whole for each in order)


def test_the_newest_by_time_wins_in_whatever_zone_it_was_written() -> None:
    early = leaf({"at": "2030-01-01T12:00:00+02:00", "v": 1})
    late = leaf({"at": "2030-01-01T10:30:00Z", "v": 2})
    assert newest("at")([early, late]) is late
    assert newest("at")([late, leaf({"v": 3})]) is late
    assert newest("n")([leaf({"n": 9}), more := leaf({"n": 10})]) is more


def test_fields_are_united_and_of_two_values_the_greater_stands() -> None:
    merged = fields([leaf({"a": 1, "o": {"x": 1}, "n": None}), leaf({"a": 2, "o": {"y": 2}, "n": False, "b": "t"})])
    assert merged.doc == {"a": 2, "o": {"x": 1, "y": 2}, "n": False, "b": "t"}


def test_of_attachments_of_one_name_the_one_that_was_changed_last_stands() -> None:
    old = Stub(content_type="a/b", digest="sha256-" + "f" * 64, length=1, revpos=1, stub=True)
    new = Stub(content_type="a/b", digest="sha256-" + "0" * 64, length=1, revpos=3, stub=True)
    other = Stub(link="http://x", revpos=1)
    found = attachments_of([leaf({}, {"p": old, "q": other}), leaf({}, {"p": new})])
    assert found == {"p": new, "q": other}


# -- settling


def test_a_leaf_that_has_the_content_already_stands_and_nothing_is_written_upon_it() -> None:
    old, new = leaf({"at": 1}, rev="5-z"), leaf({"at": 2}, rev="2-a")
    found = settle([new, old], newest("at"), BYTES_MAX)
    assert isinstance(found, Settlement)
    assert (found.leaf, found.parent, found.ended) == (new, None, (old.revision,))


def test_a_content_that_no_leaf_has_is_written_upon_the_winner() -> None:
    found = settle([leaf({"a": 1}, rev="1-a"), leaf({"b": 1}, rev="2-b")], fields, BYTES_MAX)
    assert isinstance(found, Settlement)
    assert found.parent == Revision.parse("2-b")
    assert found.leaf.revision == next_revision(found.parent, False, b'{"a":1,"b":1}')
    assert found.ended == (Revision.parse("1-a"),)


def raising(given: Sequence[LiveLeaf]) -> Any:
    raise ValueError("no")


def total(given: Sequence[LiveLeaf]) -> Any:
    return {"n": sum(each.doc["n"] for each in given)}


class Counting:
    """A function that is not pure."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, given: Sequence[LiveLeaf]) -> Any:
        self.calls += 1
        return {"calls": self.calls}


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (raising, "ValueError: no"),
        (total, "absorb"),
        (Counting(), "absorb"),
        (lambda given: 5, "gave int"),
        (lambda given: {"_id": "x"}, "'_id'"),
        (lambda given: {1: "x"}, "1"),
        (lambda given: {"x": float("nan")}, "not finite"),
        (lambda given: {"x": {2}}, "no JSON type"),
        (lambda given: {"x": 1 << 70}, "64 bits"),
        (lambda given: {"x": "y" * BYTES_MAX}, "allowed"),
        (lambda given: given[0].nothing, "AttributeError"),
    ],
)
def test_what_a_function_does_wrong_leaves_the_conflict_and_is_told(function: Any, reason: str) -> None:
    found = settle([leaf({"n": 1}, rev="1-a"), leaf({"n": 2}, rev="1-b")], function_rule(function), BYTES_MAX)
    assert isinstance(found, Unsettled)
    assert reason in found.reason


def test_a_function_may_leave_a_conflict_or_take_a_leaf() -> None:
    both = [leaf({"n": 1}, rev="1-a"), leaf({"n": 2}, rev="1-b")]
    assert settle(both, function_rule(lambda given: None), BYTES_MAX) is None
    found = settle(both, function_rule(lambda given: min(given, key=lambda each: each.doc["n"])), BYTES_MAX)
    assert isinstance(found, Settlement)
    assert found.leaf is both[0]


def test_a_function_cannot_change_the_leaves_that_it_is_given() -> None:
    def spoil(given: Sequence[LiveLeaf]) -> Any:
        given[0].doc["n"] = 7
        return given[0]

    found = settle([leaf({"n": 1}, rev="1-a"), high := leaf({"n": 2}, rev="1-b")], function_rule(spoil), BYTES_MAX)
    assert isinstance(found, Settlement)
    assert (found.leaf, found.leaf.doc) == (high, {"n": 2})


# -- many replicas: any order of any exchange comes to the same, and to rest


class Replica:
    """A document on one replica: its tree, and the contents of live revisions."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.tree: Tree = EMPTY
        self.contents: dict[Revision, LiveLeaf] = {}

    def live(self) -> list[LiveLeaf]:
        return [self.contents[node.revision] for node in leaves(self.tree) if not node.deleted]

    def edit(self, data: dict[str, Any]) -> None:
        """Write upon the winner, or begin the document."""
        parent = max((each.revision for each in self.live()), key=lambda each: each.key, default=None)
        self._write(leaf(data).upon(parent) if parent is not None else leaf(data), parent)

    def hear(self, other: Replica) -> None:
        """Learn all that the other knows, and merge."""
        self.tree = merge(self.tree, other.tree)
        self.contents |= other.contents
        while len(live := self.live()) > 1:
            found = settle(live, self.rule, BYTES_MAX, proven=True)
            assert isinstance(found, Settlement)
            if found.parent is not None:
                self._write(found.leaf, found.parent)
            for ended in found.ended:
                self.tree = graft(self.tree, (next_revision(ended, True, b"{}"), ended), True).tree

    def _write(self, new: LiveLeaf, parent: Revision | None) -> None:
        self.contents[new.revision] = new
        path = (new.revision,) if parent is None else (new.revision, parent)
        self.tree = graft(self.tree, path, False).tree


steps = st.lists(
    st.tuples(
        st.integers(0, 3), st.integers(0, 3) | st.dictionaries(st.sampled_from(["at", "k", "l"]), scalars, min_size=1)
    ),
    max_size=20,
)


@pytest.mark.parametrize("rule", [newest("at"), fields], ids=["newest", "fields"])
@settings(max_examples=150, deadline=None)
@given(history=steps, order=st.permutations(range(4)))
def test_replicas_that_heard_of_each_other_in_any_order_hold_the_same_leaves(
    rule: Rule, history: list[Any], order: list[int]
) -> None:
    replicas = [Replica(rule) for _ in range(4)]
    for at, step in history:
        if isinstance(step, int):
            replicas[at].hear(replicas[step])
        else:
            replicas[at].edit(step)
    for _ in range(3):
        for at in order:
            for other in order:
                replicas[at].hear(replicas[other])
    assert len({frozenset(node.key for node in leaves(replica.tree)) for replica in replicas}) == 1
    assert all(len(replica.live()) <= 1 for replica in replicas)


def passed_on_in_step(ring: list[Replica]) -> list[Tree] | None:
    """Each hears at once what the one before it knew; the trees once they stay, None if they do not."""
    before = None
    for _ in range(40):
        known = [(replica.tree, dict(replica.contents)) for replica in ring]
        for at, replica in enumerate(ring):
            other = Replica(replica.rule)
            other.tree, other.contents = known[at - 1]
            replica.hear(other)
        now = [replica.tree for replica in ring]
        if now == before:
            return now
        before = now
    return None


@pytest.mark.parametrize("rule", [newest("at"), fields], ids=["newest", "fields"])
@given(history=steps)
@settings(max_examples=60, deadline=None)
def test_a_ring_that_passes_on_in_step_comes_to_rest(rule: Rule, history: list[Any]) -> None:
    ring = [Replica(rule) for _ in range(4)]
    for at, step in history:
        if isinstance(step, int):
            ring[at].hear(ring[step])
        else:
            ring[at].edit(step)
    trees = passed_on_in_step(ring)
    assert trees is not None
    assert all(dict(tree) == dict(trees[0]) for tree in trees)


@pytest.mark.parametrize("rule", [newest("at"), fields], ids=["newest", "fields"])
def test_two_branches_do_not_chase_each_other_around_a_ring(rule: Rule) -> None:
    ring = [Replica(rule) for _ in range(4)]
    for at, key in ((0, "k"), (2, "l")):
        for number in range(4):
            ring[at].edit({"at": number, key: 1})
        ring[at + 1].hear(ring[at])
        ring[at].edit({"at": 9, key: 1})
    assert passed_on_in_step(ring) is not None


# -- settings and registering


@pytest.mark.parametrize(
    "given_rule",
    [
        {"rule": "oldest"},
        {"rule": "newest"},
        {"rule": "newest", "field": ""},
        {"rule": "newest", "field": "_rev"},
        {"rule": "newest", "field": "x" * 257},
        {"rule": "newest", "field": 5},
        {"rule": "newest", "field": "at", "name": "x"},
        {"rule": "fields", "field": "at"},
        {"rule": "python"},
        {"rule": "python", "name": "no spaces"},
        {"rule": "fields", "more": 1},
        {},
        "fields",
        [],
    ],
)
def test_a_setting_that_names_no_rule_is_refused(given_rule: Any) -> None:
    with pytest.raises(BadRequest):
        BarrelSettings.parse({"merge": given_rule})


def test_a_setting_stays_when_others_change_and_goes_with_null() -> None:
    ruled = BarrelSettings.parse({"merge": {"rule": "newest", "field": "at"}})
    assert ruled.merge is not None
    assert str(ruled.merge) == "newest:at"
    assert BarrelSettings.parse({"retain": True}, ruled).merge == ruled.merge
    assert BarrelSettings.parse({"merge": None}, ruled).merge is None


def test_a_function_is_registered_once_under_a_sound_name() -> None:
    merging = Merging()
    merging.register("site:longest", total)
    with pytest.raises(Exists):
        merging.register("site:longest", raising)
    with pytest.raises(BadRequest):
        merging.register("", total)
    merging.needs({"geo": "site:longest", "sea": "other"})
    assert merging.missing == {"sea": "other"}
