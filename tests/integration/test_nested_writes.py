"""Writes that are passed on from peer to peer: who has them in the end, and what the answer says."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from http_tools import eventually
from nested_tools import failures, holders, town

from broker.access import TokenAccess
from feeds import Store
from feeds.errors import Forbidden, SpileError, StorageFull, Timeout, Unavailable
from listeners.errors import Unreached
from listeners.nested import Neighbours, Nest, Reach
from listeners.replication import LocalPeer

CHAIN = {"a": ["b"], "b": ["c"], "c": ["d"], "d": []}
RING = {"a": ["b"], "b": ["c"], "c": ["a"]}
STAR = {"a": ["b", "c", "d"], "b": ["a"], "c": ["a"], "d": ["a"]}
ALL = {name: [other for other in "abcd" if other != name] for name in "abcd"}


async def test_a_write_goes_along_a_chain_to_as_many_as_were_asked_for(tmp_path: Path) -> None:
    async with town(tmp_path, CHAIN) as there:
        answer = await there.put("a", "FR", {"name": "France"}, p2p_write=3)
        told = answer.json()
        assert answer.status_code == 201
        assert holders(answer) == ["here", "b", "b/c"]
        assert (told["p2p"]["wanted"], told["p2p"]["reached"], told["p2p"]["complete"]) == (3, 3, True)
        assert there.having("FR", told["rev"]) == {"a", "b", "c"}
        stores = [holder["store"] for holder in told["p2p"]["holders"]]
        assert stores == [there.services[name].store.id for name in "abc"]


async def test_the_depth_bounds_how_far_it_goes(tmp_path: Path) -> None:
    async with town(tmp_path, CHAIN) as there:
        for depth, reached in ((1, "ab"), (2, "abc"), (3, "abcd")):
            answer = await there.put("a", f"d{depth}", {}, p2p_write=9, p2p_depth=depth)
            assert answer.status_code == 202
            assert answer.json()["p2p"]["reached"] == len(reached)
            assert there.having(f"d{depth}", answer.json()["rev"]) == set(reached)


async def test_a_ring_comes_to_rest_and_nobody_is_counted_twice(tmp_path: Path) -> None:
    async with town(tmp_path, RING) as there:
        answer = await there.put("a", "FR", {}, p2p_write=9, p2p_depth=8)
        assert answer.status_code == 202
        assert holders(answer) == ["here", "b", "b/c"]
        assert failures(answer) == {}


async def test_where_all_see_all_everyone_is_counted_once(tmp_path: Path) -> None:
    async with town(tmp_path, ALL) as there:
        answer = await there.put("a", "FR", {}, p2p_write=9, p2p_depth=8)
        assert sorted(holders(answer)) == ["b", "c", "d", "here"]
        assert failures(answer) == {}


async def test_a_service_that_finds_itself_among_its_peers_passes_itself_over(tmp_path: Path) -> None:
    same = {name: list("abc") for name in "abc"}
    async with town(tmp_path, same) as there:
        answer = await there.put("b", "FR", {}, p2p_write=9)
        assert sorted(holders(answer)) == ["a", "c", "here"]
        assert failures(answer) == {}


async def test_no_more_are_asked_than_are_wanted(tmp_path: Path) -> None:
    async with town(tmp_path, STAR) as there:
        answer = await there.put("a", "FR", {}, p2p_write=2)
        assert holders(answer) == ["here", "b"]
        assert there.proxies["c"].connections == there.proxies["d"].connections == 0
        alone = await there.put("a", "DE", {}, p2p_write=1)
        assert holders(alone) == ["here"]


async def test_a_dead_peer_is_named_and_another_one_takes_its_place(tmp_path: Path) -> None:
    async with town(tmp_path, STAR) as there:
        await there.stop("b")
        answer = await there.put("a", "FR", {}, p2p_write=3)
        assert answer.status_code == 201
        assert sorted(holders(answer)) == ["c", "d", "here"]
        assert failures(answer) == {"b": ("write", "unavailable")}
        more = await there.put("a", "DE", {}, p2p_write=4)
        assert (more.status_code, more.json()["p2p"]["complete"]) == (202, False)
        assert failures(more) == {"b": ("write", "unavailable")}
        (miss,) = more.json()["p2p"]["failed"]
        assert "cannot be reached" in miss["reason"]
        assert "unknown" not in miss


async def test_a_dead_link_in_a_chain_is_told_by_the_one_before_it(tmp_path: Path) -> None:
    async with town(tmp_path, CHAIN) as there:
        await there.stop("c")
        answer = await there.put("a", "FR", {}, p2p_write=4)
        assert answer.status_code == 202
        assert holders(answer) == ["here", "b"]
        assert failures(answer) == {"b/c": ("write", "unavailable")}


async def test_beside_a_peer_that_says_nothing_the_next_one_is_tried(tmp_path: Path) -> None:
    async with town(tmp_path, STAR, hesitates_s=0.2) as there:
        there.proxies["b"].black_hole()
        answer = await there.put("a", "FR", {}, p2p_write=3)
        assert answer.status_code == 201
        assert sorted(holders(answer)) == ["c", "d", "here"]
        assert failures(answer) == {}


async def test_within_the_time_limit_there_is_an_answer_that_names_who_was_too_slow(tmp_path: Path) -> None:
    async with town(tmp_path, STAR, hesitates_s=0.2) as there:
        await there.put("a", "warm", {}, p2p_write=4)
        there.proxies["b"].black_hole()
        answer = await there.put("a", "FR", {}, p2p_write=4, p2p_timeout=6_000)
        assert answer.status_code == 202
        assert sorted(holders(answer)) == ["c", "d", "here"]
        assert failures(answer) == {"b": ("write", "timeout")}


async def test_a_slow_peer_is_waited_for_as_long_as_there_is_time(tmp_path: Path) -> None:
    async with town(tmp_path, {"a": ["b"], "b": []}) as there:
        there.proxies["b"].slow(2_000)
        answer = await there.put("a", "FR", {"name": "x" * 2_000}, p2p_write=2)
        assert answer.status_code == 201
        assert holders(answer) == ["here", "b"]


async def test_an_answer_that_is_lost_leaves_it_unknown(tmp_path: Path) -> None:
    async with town(tmp_path, {"a": ["b"], "b": []}) as there:
        await there.put("a", "warm", {}, p2p_write=2)
        there.proxies["b"].slow(3_000)
        answer = await there.put("a", "FR", {"name": "x" * 60_000}, p2p_write=2, p2p_timeout=4_000)
        assert answer.status_code == 202
        (miss,) = answer.json()["p2p"]["failed"]
        assert (miss["peer"], miss["error"], miss["unknown"]) == ("b", "timeout", True)


async def test_a_peer_that_refuses_is_named_with_its_reason(tmp_path: Path) -> None:
    access = {"b": TokenAccess("right"), "c": TokenAccess("right")}
    secrets = {("a", "b"): "wrong", ("a", "c"): "right"}
    async with town(
        tmp_path, {"a": ["b", "c", "d"], "b": [], "c": [], "d": []}, access=access, secrets=secrets
    ) as there:
        there.services["d"].store.drop("geo")
        answer = await there.put("a", "FR", {}, p2p_write=4)
        assert answer.status_code == 202
        assert holders(answer) == ["here", "c"]
        assert failures(answer) == {"b": ("write", "unauthorized"), "d": ("write", "not_found")}
        assert "wrong" not in answer.text
        assert "right" not in answer.text


async def test_a_document_that_is_too_large_there_is_refused_there_alone(tmp_path: Path) -> None:
    from http_tools import served

    from broker.http import HttpLimits

    limits = HttpLimits(document_bytes_max=1_000, bulk_bytes_max=1_000)
    async with served(tmp_path / "small", limits=limits) as small:
        small.store.create("geo")
        with Store.open(tmp_path / "here") as store:
            barrel = store.create("geo")
            nest = Nest(store, Neighbours.of([f"small={small.url}"]))
            done = await nest.write("geo", {"_id": "FR", "name": "x" * 2_000}, Reach(2))
            await nest.close()
            assert barrel.get("FR").rev == done.written.rev
            assert not done.told.complete
            assert [(miss.peer, miss.error) for miss in done.told.failed] == [("small", "too_large")]


async def test_what_is_refused_here_is_not_passed_on(tmp_path: Path) -> None:
    async with town(tmp_path, CHAIN) as there:
        await there.put("a", "FR", {})
        answer = await there.put("a", "FR", {"name": "again"}, p2p_write=2)
        assert (answer.status_code, answer.json()["error"]) == (409, "conflict")
        assert there.proxies["b"].connections == 0


async def test_a_repeated_write_is_passed_on_again_and_stays_one_revision(tmp_path: Path) -> None:
    async with town(tmp_path, CHAIN) as there:
        first = await there.put("a", "FR", {"n": 1}, p2p_write=2, Idempotency_Key="k1")
        again = await there.put("a", "FR", {"n": 1}, p2p_write=4, Idempotency_Key="k1")
        assert first.json()["rev"] == again.json()["rev"]
        assert again.json()["repeated"]
        assert holders(again) == ["here", "b", "b/c", "b/c/d"]
        assert there.barrel("b").head() == 1
        other = await there.put("a", "FR", {"n": 2}, p2p_write=2, Idempotency_Key="k1")
        assert (other.status_code, other.json()["error"]) == (422, "token_reused")


async def test_after_a_peer_died_in_the_middle_the_same_token_brings_it_to_its_end(tmp_path: Path) -> None:
    async with town(tmp_path, CHAIN) as there:
        there.proxies["c"].cut_after(100, "up")
        first = await there.put("a", "FR", {"n": 1}, p2p_write=4, Idempotency_Key="k1")
        again = await there.put("a", "FR", {"n": 1}, p2p_write=4, Idempotency_Key="k1")
        assert again.status_code in (200, 201)
        assert there.having("FR", first.json()["rev"]) == set("abcd")


async def test_the_revision_travels_with_its_history_and_its_attachments(tmp_path: Path) -> None:
    async with town(tmp_path, CHAIN) as there:
        barrel = there.barrel("a")
        barrel.put({"_id": "FR", "n": 1})
        barrel.attach("FR", "flag", b"blue white red" * 1_000)
        rev = barrel.get("FR").rev
        answer = await there.put(
            "a", "FR", {"_rev": rev, "n": 3, "_attachments": {"flag": {"stub": True}}}, p2p_write=4
        )
        assert answer.status_code == 200
        for name in "bcd":
            found = there.barrel(name).get("FR", revs=True)
            assert found.rev == answer.json()["rev"]
            assert len(found.data["_revisions"]["ids"]) == 3
            assert b"".join(there.barrel(name).attachment("FR", "flag").read()) == b"blue white red" * 1_000


async def test_patches_deletions_and_new_documents_are_passed_on_too(tmp_path: Path) -> None:
    async with town(tmp_path, {"a": ["b"], "b": []}) as there:
        client = there.services["a"].client
        made = (await client.post("/barrels/geo/docs?p2p_write=2", json={"n": 1})).json()
        patched = await client.patch(f"/barrels/geo/docs/{made['id']}?p2p_write=2", json={"m": 2})
        assert there.barrel("b").get(made["id"]).data["m"] == 2
        rev = patched.json()["rev"]
        deleted = await client.delete(f"/barrels/geo/docs/{made['id']}", params={"rev": rev, "p2p_write": 2})
        assert (deleted.status_code, holders(deleted)) == (200, ["here", "b"])
        assert there.having(made["id"], deleted.json()["rev"]) == {"a", "b"}


async def test_two_writes_of_one_document_at_once_become_the_same_conflict_everywhere(tmp_path: Path) -> None:
    async with town(tmp_path, {"a": ["b"], "b": ["a"]}) as there:
        one, other = await asyncio.gather(
            there.put("a", "FR", {"by": "a"}, p2p_write=2), there.put("b", "FR", {"by": "b"}, p2p_write=2)
        )
        revs = {each.json()["rev"] for each in (one, other) if each.status_code in (200, 201)}
        assert revs
        for rev in revs:
            assert there.having("FR", rev) == {"a", "b"}
        assert there.barrel("a").get("FR").rev == there.barrel("b").get("FR").rev


async def test_many_at_once_all_arrive(tmp_path: Path) -> None:
    async with town(tmp_path, RING) as there:
        answers = await asyncio.gather(*(there.put("a", f"d{n}", {"n": n}, p2p_write=3) for n in range(30)))
        assert {answer.status_code for answer in answers} == {201}
        for name in "abc":
            assert there.barrel(name).info().doc_count == 30


async def test_a_barrel_says_which_peers_have_it(tmp_path: Path) -> None:
    async with town(tmp_path, STAR) as there:
        client = there.services["a"].client
        assert (await client.patch("/barrels/geo", json={"peers": ["d", "ghost"]})).status_code == 200
        answer = await there.put("a", "FR", {}, p2p_write=3, p2p_depth=1)
        assert holders(answer) == ["here", "d"]
        assert failures(answer) == {"ghost": ("write", "not_found")}
        await client.patch("/barrels/geo", json={"peers": []})
        assert holders(await there.put("a", "DE", {}, p2p_write=3)) == ["here"]
        for bad in (["here"], ["a/b"], [""], ["x"] * 33, "d"):
            assert (await client.patch("/barrels/geo", json={"peers": bad})).status_code == 400


async def test_a_revision_that_is_here_already_can_be_passed_on(tmp_path: Path) -> None:
    async with town(tmp_path, CHAIN) as there:
        rev = there.barrel("a").put({"_id": "FR"}).rev
        client = there.services["a"].client
        told = (await client.post("/barrels/geo/docs/_p2p_write", json={"id": "FR", "rev": rev, "wanted": 3})).json()
        assert [holder["peer"] for holder in told["holders"]] == ["here", "b", "b/c"]
        ours = f"{there.services['a'].store.id}/geo"
        seen = {"id": "FR", "rev": rev, "wanted": 3, "seen": [ours]}
        told = (await client.post("/barrels/geo/docs/_p2p_write", json=seen)).json()
        assert (told["reached"], told["complete"]) == (1, False)


@pytest.mark.parametrize(
    "asked",
    [
        {"p2p_write": 0},
        {"p2p_write": 65},
        {"p2p_write": "two"},
        {"p2p_write": 2, "p2p_depth": 0},
        {"p2p_write": 2, "p2p_depth": 9},
        {"p2p_write": 2, "p2p_timeout": 60_001},
        {"p2p_depth": 2},
        {"p2p_timeout": 2},
    ],
)
async def test_options_that_cannot_be_meant_are_refused_and_nothing_is_written(
    tmp_path: Path, asked: dict[str, Any]
) -> None:
    async with town(tmp_path, {"a": ["b"], "b": []}) as there:
        answer = await there.put("a", "FR", {}, **asked)
        assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")
        assert there.barrel("a").head() == 0


@pytest.mark.parametrize(
    "body",
    [
        {"id": "FR", "rev": "1-a"},
        {"id": "FR", "rev": "1-a", "wanted": 2, "seen": ["x"] * 300},
        {"id": "FR", "rev": "1-a", "wanted": 2, "more": 1},
        {"id": "FR", "rev": "1-a", "wanted": 2, "depth": 9},
        [],
    ],
)
async def test_calls_between_services_are_checked(tmp_path: Path, body: Any) -> None:
    async with town(tmp_path, {"a": []}) as there:
        answer = await there.services["a"].client.post("/barrels/geo/docs/_p2p_write", json=body)
        assert answer.status_code == 400
        gone = {"id": "FR", "rev": "1-" + "a" * 32, "wanted": 2}
        assert (await there.services["a"].client.post("/barrels/geo/docs/_p2p_write", json=gone)).status_code == 404


async def test_too_many_at_once_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    async with town(tmp_path, {"a": ["b"], "b": []}) as there:
        nest = there.services["a"].app.services.nest
        assert nest is not None
        held = [nest.place() for _ in range(64)]
        for each in held:
            each.__enter__()
        answer = await there.put("a", "FR", {}, p2p_write=2)
        assert (answer.status_code, answer.json()["error"]) == (503, "overloaded")
        assert there.barrel("a").head() == 0
        for each in held:
            each.__exit__(None, None, None)
        assert (await there.put("a", "FR", {}, p2p_write=2)).status_code == 201
        assert nest.stats()["depth"] == {"nested_calls": 0}


async def test_a_peer_that_is_in_too_many_calls_is_named(tmp_path: Path) -> None:
    async with town(tmp_path, CHAIN) as there:
        nest = there.services["b"].app.services.nest
        assert nest is not None
        held = [nest.place() for _ in range(64)]
        for each in held:
            each.__enter__()
        answer = await there.put("a", "FR", {}, p2p_write=3)
        assert holders(answer) == ["here", "b"]
        assert failures(answer) == {"b": ("pass_on", "overloaded")}
        for each in held:
            each.__exit__(None, None, None)


async def test_a_client_that_leaves_does_not_hold_a_place(tmp_path: Path) -> None:
    async with town(tmp_path, {"a": ["b"], "b": []}) as there:
        there.proxies["b"].black_hole()
        nest = there.services["a"].app.services.nest
        assert nest is not None
        _, writer = await there.services["a"].connect()
        writer.write(
            b"PUT /barrels/geo/docs/FR?p2p_write=2&p2p_timeout=2500 HTTP/1.1\r\nHost: t\r\n"
            b"Content-Length: 2\r\n\r\n{}"
        )
        await eventually(lambda: nest.stats()["depth"]["nested_calls"] == 1)
        writer.close()
        await eventually(lambda: nest.stats()["depth"]["nested_calls"] == 0)


async def test_a_peer_that_knows_only_replication_is_written_to_and_goes_no_further(tmp_path: Path) -> None:
    with Store.open(tmp_path / "one") as one, Store.open(tmp_path / "two") as two:
        one.create("geo")
        two.create("geo")
        plain = LocalPeer(two, "geo")
        nest = Nest(one, Neighbours({"two": plain}))
        done = await nest.write("geo", {"_id": "FR"}, Reach(3))
        assert [holder.peer for holder in done.told.holders] == ["here", "two"]
        assert two.barrel("geo").get("FR").rev == done.written.rev
        await nest.close()
        await plain.close()


class Hurt:
    """A peer of which one call fails, with no word on what it has done; nothing else is asked of it."""

    def __init__(self, peer: LocalPeer, call: str, error: SpileError, *, after: bool = False) -> None:
        self._peer = peer
        self._call = call
        self._error = error
        self._after = after

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._peer, name)
        if name != self._call:
            return call

        async def failing(*given: Any) -> Any:
            if self._after:
                await call(*given)
            raise self._error

        return failing


@pytest.mark.parametrize(
    ("call", "error", "after", "unknown"),
    [
        ("identity", Unavailable("away"), False, False),
        ("revs_diff", Timeout("silent"), False, False),
        ("missing_blobs", Unavailable("away"), False, False),
        ("write_blob", Timeout("silent"), False, False),
        ("write", Unreached("nobody there"), False, False),
        ("write", Forbidden("not you"), False, False),
        ("write", StorageFull("full"), False, False),
        ("write", Timeout("silent"), True, True),
        ("write", Unavailable("the link is cut"), True, True),
        ("write", Unavailable("the link is cut"), False, True),
    ],
)
async def test_only_where_it_was_asked_to_write_and_gave_no_answer_it_may_have_it(
    tmp_path: Path, call: str, error: SpileError, after: bool, unknown: bool
) -> None:
    with Store.open(tmp_path / "one") as one, Store.open(tmp_path / "two") as two:
        one.create("geo").attach("FR", "flag", b"blue, white, red")
        plain = LocalPeer(two, two.create("geo").name)
        nest = Nest(one, Neighbours({"two": Hurt(plain, call, error, after=after)}))  # type: ignore[dict-item]
        barrel = one.barrel("geo")
        told = await nest.pass_on(barrel, "FR", barrel.get("FR").rev, Reach(2))
        assert [(miss.peer, miss.error, miss.unknown) for miss in told.failed] == [("two", error.code, unknown)]
        await nest.close()
        await plain.close()
