"""Barrels with one merge rule that exchange what they have in any order come to the same leaves, and to rest."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from store_tools import careless

from feeds import Barrel, Store
from feeds.errors import Conflict
from feeds.merging import LiveLeaf

BARRELS = 4
DOCUMENTS = 6

RULES: list[dict[str, str]] = [
    {"rule": "newest", "field": "at"},
    {"rule": "fields"},
    {"rule": "python", "name": "richest"},
]


def richest(leaves: Sequence[LiveLeaf]) -> LiveLeaf:
    """The leaf with the most keys."""
    return max(leaves, key=lambda leaf: (len(leaf.doc), leaf.text, leaf.meaning))


def pull(source: Barrel, target: Barrel, chance: random.Random) -> int:
    """Take over the leaves that the target lacks, in any order and in batches of any size; how many there were."""
    missing = target.revs_diff({row.id: row.changes for row in source.changes().results})
    wanted = [(id, rev) for id, told in missing.items() for rev in told["missing"]]
    chance.shuffle(wanted)
    left = list(wanted)
    while left:
        batch = [left.pop() for _ in range(min(len(left), chance.randint(1, 5)))]
        docs = [document for document in source.get_many(batch, revs=True) if not isinstance(document, Exception)]
        target.bulk([with_contents(source, document.json()) for document in docs], new_edits=False)
    return len(wanted)


def with_contents(source: Barrel, doc: bytes) -> bytes:
    return source.inlined(doc, 1 << 20)


def edit(barrel: Barrel, chance: random.Random) -> None:
    """Write, delete or attach something, by whoever sees nothing but this barrel."""
    id = f"d{chance.randrange(DOCUMENTS)}"
    doc: dict[str, Any] = {key: chance.randrange(9) for key in "abc" if chance.random() < 0.6}
    what = chance.random()
    try:
        if what < 0.7:
            barrel.put({**doc, "at": chance.randrange(5)}, id=id, update=True)
        elif what < 0.85:
            barrel.attach(id, chance.choice(["one", "two"]), chance.choice([b"x", b"y", b"z"]))
        else:
            barrel.delete(id, rev=barrel.get(id).rev)
    except Exception as error:
        if type(error).__name__ not in ("Missing", "Deleted"):
            raise


def leaves_of(barrel: Barrel) -> dict[str, list[str]]:
    return {row.id: row.changes for row in barrel.changes().results}


@pytest.mark.parametrize("rule", RULES, ids=["newest", "fields", "python"])
@pytest.mark.parametrize("seed", range(4))
def test_barrels_that_exchange_in_any_order_come_to_the_same(tmp_path: Path, rule: dict[str, str], seed: int) -> None:
    chance = random.Random(f"{rule}{seed}")
    with Store.open(tmp_path) as store:
        careless(store)
        store.merging.register("richest", richest)
        barrels = [store.create(f"b{number}", {"merge": rule}) for number in range(BARRELS)]
        for _ in range(60):
            if chance.random() < 0.6:
                edit(chance.choice(barrels), chance)
            else:
                source, target = chance.sample(barrels, 2)
                pull(source, target, chance)
        links = [(source, target) for source in barrels for target in barrels if source is not target]
        for _ in range(6):
            chance.shuffle(links)
            if not sum(pull(source, target, chance) for source, target in links):
                break
        else:
            pytest.fail("they exchange for ever")
        first = barrels[0]
        assert {id: set(leaves) for id, leaves in leaves_of(first).items()}
        for other in barrels[1:]:
            assert leaves_of(other) == leaves_of(first)
            assert other.conflicts.page().results == []
            for id, (rev, *_) in leaves_of(first).items():
                assert other.get(id, rev=rev).data == first.get(id, rev=rev).data
        assert store.check().problems == []


def test_a_barrel_without_the_rule_learns_what_others_made_of_a_conflict(tmp_path: Path) -> None:
    chance = random.Random(1)
    with Store.open(tmp_path) as store:
        ruled, plain = store.create("ruled", {"merge": {"rule": "fields"}}), store.create("plain")
        ruled.put({"a": 1}, id="x")
        plain.put({"b": 2}, id="x")
        pull(ruled, plain, chance)
        assert len(plain.conflicts.page().results) == 1
        pull(plain, ruled, chance)
        pull(ruled, plain, chance)
        assert plain.conflicts.page().results == []
        assert leaves_of(plain) == leaves_of(ruled)
        with pytest.raises(Conflict):
            plain.conflicts.resolve("x", doc={"c": 3})
