"""Reads that look further: here first, then at peers, and what is kept of what they find."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from nested_tools import town

from broker.access import TokenAccess
from feeds import Store, StoreSettings
from feeds.errors import Missing
from listeners.nested import Neighbours, Nest, Search
from listeners.replication import LocalPeer

CHAIN = {"a": ["b"], "b": ["c"], "c": ["d"], "d": []}
RING = {"a": ["b"], "b": ["c"], "c": ["a"]}
STAR = {"a": ["b", "c", "d"], "b": [], "c": [], "d": []}


def told(answer: Any) -> tuple[list[str], dict[str, str]]:
    """Who answered that it does not have it, and who failed and why."""
    asked = answer.json()["p2p"]
    return [each["peer"] for each in asked["answered"]], {each["peer"]: each["error"] for each in asked["failed"]}


async def test_what_is_here_is_read_here_and_nobody_is_asked(tmp_path: Path) -> None:
    async with town(tmp_path, STAR) as there:
        there.barrel("a").put({"_id": "FR", "at": "a"})
        there.barrel("b").put({"_id": "FR", "at": "b"})
        answer = await there.get("a", "FR", p2p_read="order")
        assert answer.json()["at"] == "a"
        assert "spile-peer" not in answer.headers
        assert there.proxies["b"].connections == 0


async def test_what_is_not_here_is_read_from_a_peer_and_not_kept_unless_asked(tmp_path: Path) -> None:
    async with town(tmp_path, STAR) as there:
        rev = there.barrel("c").put({"_id": "FR", "at": "c"}).rev
        answer = await there.get("a", "FR", p2p_read="order")
        assert answer.json() == {"_id": "FR", "_rev": rev, "at": "c"}
        assert answer.headers["spile-peer"] == "c"
        assert answer.headers["etag"] == f'"{rev}"'
        assert "spile-kept" not in answer.headers
        assert there.having("FR", rev) == {"c"}
        assert there.proxies["d"].connections == 0
        with_revs = await there.get("a", "FR", p2p_read="order", revs="true")
        assert with_revs.json()["_revisions"]["start"] == 1


async def test_what_is_found_is_kept_with_its_history(tmp_path: Path) -> None:
    async with town(tmp_path, {"a": ["b"], "b": []}) as there:
        first = there.barrel("b").put({"_id": "FR", "n": 1}).rev
        rev = there.barrel("b").put({"_id": "FR", "_rev": first, "n": 2}).rev
        answer = await there.get("a", "FR", p2p_read="order", keep="true")
        assert (answer.headers["spile-peer"], answer.headers["spile-kept"]) == ("b", "true")
        kept = there.barrel("a").get("FR", revs=True)
        assert kept.rev == rev
        assert len(kept.data["_revisions"]["ids"]) == 2
        again = await there.get("a", "FR", p2p_read="order", keep="true")
        assert "spile-peer" not in again.headers


async def test_a_document_comes_along_a_chain_and_is_kept_at_every_stop(tmp_path: Path) -> None:
    async with town(tmp_path, CHAIN) as there:
        there.barrel("d").put({"_id": "FR"})
        there.barrel("d").attach("FR", "flag", b"blue" * 100_000)
        rev = there.barrel("d").get("FR").rev
        plain = await there.get("a", "FR", p2p_read="order")
        assert plain.headers["spile-peer"] == "b/c/d"
        assert there.having("FR", rev) == {"d"}
        kept = await there.get("a", "FR", p2p_read="order", keep="true")
        assert kept.headers["spile-kept"] == "true"
        assert there.having("FR", rev) == set("abcd")
        assert b"".join(there.barrel("a").attachment("FR", "flag").read()) == b"blue" * 100_000


async def test_the_depth_bounds_how_far_it_is_looked_for(tmp_path: Path) -> None:
    async with town(tmp_path, CHAIN) as there:
        there.barrel("d").put({"_id": "FR"})
        short = await there.get("a", "FR", p2p_read="order", p2p_depth=2)
        assert (short.status_code, short.json()["missing"]) == (404, True)
        assert told(short) == (["b", "b/c"], {})
        assert (await there.get("a", "FR", p2p_read="order", p2p_depth=3)).status_code == 200


async def test_a_nearer_peer_is_asked_before_the_peers_of_one_before_it(tmp_path: Path) -> None:
    async with town(tmp_path, {"a": ["b", "c"], "b": ["d"], "c": [], "d": []}) as there:
        for name in "cd":
            there.barrel(name).put({"_id": "FR", "at": name})
        assert (await there.get("a", "FR", p2p_read="order")).headers["spile-peer"] == "c"


async def test_a_ring_is_gone_round_once(tmp_path: Path) -> None:
    async with town(tmp_path, RING) as there:
        answer = await there.get("a", "FR", p2p_read="order", p2p_depth=8)
        assert (answer.status_code, answer.json()["error"]) == (404, "not_found")
        assert told(answer) == (["b", "b/c"], {})


async def test_peers_that_cannot_say_are_told_apart_from_those_that_do_not_have_it(tmp_path: Path) -> None:
    access, secrets = {"c": TokenAccess("right")}, {("a", "c"): "wrong"}
    async with town(tmp_path, STAR, access=access, secrets=secrets) as there:
        await there.stop("b")
        answer = await there.get("a", "FR", p2p_read="order")
        assert answer.status_code == 404
        assert told(answer) == (["d"], {"b": "unavailable", "c": "unauthorized"})
        assert "without it: d. These did not say: " in answer.json()["reason"]
        there.barrel("d").put({"_id": "FR"})
        assert (await there.get("a", "FR", p2p_read="order")).headers["spile-peer"] == "d"


async def test_beside_one_that_says_nothing_the_next_is_asked(tmp_path: Path) -> None:
    async with town(tmp_path, STAR, hesitates_s=0.2) as there:
        there.proxies["b"].black_hole()
        there.barrel("c").put({"_id": "FR"})
        answer = await there.get("a", "FR", p2p_read="order")
        assert answer.headers["spile-peer"] == "c"
        late = await there.get("a", "none", p2p_read="first", p2p_timeout=6_000)
        assert told(late)[1] == {"b": "timeout"}


async def test_all_at_once_the_first_that_has_it_counts(tmp_path: Path) -> None:
    async with town(tmp_path, STAR) as there:
        there.proxies["b"].freeze()
        for name in "bd":
            there.barrel(name).put({"_id": "FR", "at": name})
        answer = await there.get("a", "FR", p2p_read="first")
        assert answer.json()["at"] == "d"
        there.proxies["b"].heal()


async def test_a_deletion_that_is_known_here_is_the_answer(tmp_path: Path) -> None:
    async with town(tmp_path, {"a": ["b"], "b": []}) as there:
        rev = there.barrel("a").put({"_id": "FR"}).rev
        there.barrel("a").delete("FR", rev=rev)
        there.barrel("b").put({"_id": "FR"})
        answer = await there.get("a", "FR", p2p_read="order")
        assert (answer.status_code, answer.json()["deleted"]) == (404, True)
        assert there.proxies["b"].connections == 0


async def test_a_deletion_at_a_peer_is_the_answer_too(tmp_path: Path) -> None:
    async with town(tmp_path, CHAIN) as there:
        rev = there.barrel("c").put({"_id": "FR"}).rev
        there.barrel("c").delete("FR", rev=rev)
        there.barrel("d").put({"_id": "FR"})
        answer = await there.get("a", "FR", p2p_read="order")
        assert (answer.status_code, answer.json()["deleted"]) == (404, True)
        assert "b/c" in answer.json()["reason"]


async def test_one_revision_is_looked_for_where_the_document_is_known(tmp_path: Path) -> None:
    async with town(tmp_path, {"a": ["b"], "b": []}) as there:
        there.barrel("a").put({"_id": "FR", "by": "a"})
        rev = there.barrel("b").put({"_id": "FR", "by": "b"}).rev
        answer = await there.get("a", "FR", p2p_read="order", rev=rev, keep="true")
        assert answer.json()["by"] == "b"
        assert there.having("FR", rev) == {"a", "b"}


async def test_what_only_a_document_that_is_here_can_tell_wants_it_kept(tmp_path: Path) -> None:
    async with town(tmp_path, {"a": ["b"], "b": []}) as there:
        there.barrel("b").put({"_id": "FR"})
        there.barrel("b").attach("FR", "flag", b"blue")
        for option in ("history", "conflicts", "attachments"):
            refused = await there.get("a", "FR", p2p_read="order", **{option: "true"})
            assert (refused.status_code, refused.json()["error"]) == (400, "bad_request")
        found = await there.get("a", "FR", p2p_read="order", keep="true", attachments="true", history="true")
        assert found.json()["_attachments"]["flag"]["data"] == "Ymx1ZQ=="
        assert len(found.json()["_history"]) == 2


async def test_what_cannot_be_kept_is_answered_all_the_same(tmp_path: Path) -> None:
    small = StoreSettings(document_bytes_max=1_000)
    with Store.open(tmp_path / "one", small) as one, Store.open(tmp_path / "two") as two:
        here, there = one.create("geo"), two.create("geo")
        there.put({"_id": "FR", "name": "x" * 2_000})
        plain = LocalPeer(two, "geo")
        nest = Nest(one, Neighbours({"two": plain}))
        doc, said = await nest.read("geo", "FR", Search(keep=True))
        assert len(msgspec.json.decode(doc)["name"]) == 2_000
        assert (said.peer, said.kept) == ("two", False)
        assert "1000" in (said.not_kept or "")
        assert here.head() == 0
        await nest.close()
        await plain.close()


@pytest.mark.parametrize(
    "asked",
    [
        {"p2p_read": "all"},
        {"p2p_read": "order", "p2p_depth": 0},
        {"p2p_read": "order", "p2p_timeout": 0},
        {"p2p_read": "order", "keep": "perhaps"},
        {"keep": "true"},
        {"p2p_depth": 2},
    ],
)
async def test_options_that_cannot_be_meant_are_refused(tmp_path: Path, asked: dict[str, Any]) -> None:
    async with town(tmp_path, {"a": []}) as there:
        answer = await there.get("a", "FR", **asked)
        assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")


async def test_a_service_without_peers_says_that_it_has_asked_nobody(tmp_path: Path) -> None:
    async with town(tmp_path, {"a": []}) as there:
        answer = await there.get("a", "FR", p2p_read="first", keep="true")
        assert answer.status_code == 404
        assert told(answer) == ([], {})


async def test_a_peer_that_knows_only_replication_is_read_from_too(tmp_path: Path) -> None:
    with Store.open(tmp_path / "one") as one, Store.open(tmp_path / "two") as two:
        here, there = one.create("geo"), two.create("geo")
        there.put({"_id": "FR", "n": 1})
        rev = there.attach("FR", "flag", b"blue").rev
        there.delete("DE", rev=there.put({"_id": "DE"}).rev)
        plain = LocalPeer(two, "geo")
        nest = Nest(one, Neighbours({"two": plain}))
        doc, said = await nest.read("geo", "FR", Search(keep=True))
        assert (msgspec.json.decode(doc)["n"], said.peer, said.kept) == (1, "two", True)
        assert here.get("FR").rev == rev
        assert b"".join(here.attachment("FR", "flag").read()) == b"blue"
        with pytest.raises(Missing, match="without it: two"):
            await nest.read("geo", "XX", Search())
        with pytest.raises(Exception, match="was deleted, as two tells"):
            await nest.read("geo", "DE", Search())
        await nest.close()
        await plain.close()
