"""What a replication that is asked for means, what it is called, and that its secrets are in their place alone."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from broker.replication.reports import Direction, Report, direction, summed, worst
from broker.replication.task import Asked, Login, Secrets, Task, task_of, with_login
from feeds.errors import BadRequest
from listeners.replication import HttpPeer
from listeners.replication.progress import Progress

HUB = "http://hub:8000/geo"


def asked(source: str = "geo", target: str = HUB, **more: Any) -> tuple[Task, Secrets]:
    return task_of(Asked(source, target, **more))


def task(source: str = "geo", target: str = HUB, **more: Any) -> Task:
    return asked(source, target, **more)[0]


# -- ends


def test_a_barrel_here_has_a_bare_name_and_others_have_urls() -> None:
    found = task("a/b", "mqtt://hub:1883/site/geo")
    assert (found.source, found.target) == ("a/b", "mqtt://hub:1883/site/geo")


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ("Geo", HUB, "barrel"),
        ("", HUB, "barrel"),
        ("data#geo", HUB, "opens its own alone"),
        ("sqlite:///spile.db#geo", HUB, "opens its own alone"),
        ("ftp://hub/geo", HUB, "names no store"),
        ("http://hub:8000/", "geo", "names no barrel"),
        ("http://hub:8000/geo?x=1", "geo", "ca, cert, key"),
        ("http://hub:8000/geo#x", "geo", "fragment"),
        ("geo", "geo", "the same barrel"),
        ("http://u:p@hub:8000/barrels/geo", HUB, "the same barrel"),
    ],
)
def test_what_names_no_two_ends_is_refused_with_words(source: str, target: str, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        asked(source, target)


@pytest.mark.parametrize(
    "more",
    [
        {"patterns": ["a#b"]},
        {"ids": []},
        {"ids": ["_x"]},
        {"ids": ["a"], "patterns": ["b"]},
        {"selector": {"a": {"$no": 1}}},
        {"source_token": "t"},
    ],
)
def test_what_makes_no_sense_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        asked(**more)


# -- secrets


def test_a_login_is_taken_out_of_a_url_and_put_back_in() -> None:
    url = "http://me%40home:p%3Aw%2Fd@hub:8000/geo"
    found, secrets = asked("geo", url, target_token="t0ken")
    assert found.target == HUB
    assert secrets.target == Login("me@home", "p:w/d", "t0ken")
    assert secrets.ends == ["target"]
    assert with_login(found.target, secrets.target) == url
    assert with_login(found.target, None) == with_login(found.target, Login(token="t")) == HUB


def test_a_token_in_a_url_that_names_no_user_is_kept() -> None:
    url = "http://:t0ken@hub:8000/geo"
    found, secrets = asked("geo", url)
    assert (found.target, secrets.target) == (HUB, Login("", "t0ken"))
    assert with_login(found.target, secrets.target) == url


def test_files_for_tls_stay_behind_the_url() -> None:
    url = "https://me:secret@hub/geo?ca=/etc/ca.pem&cert=/etc/me.pem"
    found, secrets = asked("geo", url)
    assert found.target == "https://hub/geo?ca=/etc/ca.pem&cert=/etc/me.pem"
    assert with_login(found.target, secrets.target) == url


def test_a_secret_stands_neither_in_the_task_nor_in_what_is_printed() -> None:
    found, secrets = asked("mqtt://u5er:pa55@hub/geo", "geo", source_token="t0ken")
    told = f"{found} {found!r} {msgspec.json.encode(found)!r} {found.id} {secrets!r}"
    assert not [secret for secret in ("u5er", "pa55", "t0ken") if secret in told]


@pytest.mark.parametrize("token", ["s3cret\n", "s3\r\nX-Other: cret", "s3crét", "s3\0cret"])
def test_a_token_that_cannot_be_sent_is_refused_without_being_shown(token: str) -> None:
    with pytest.raises(BadRequest) as refused:
        asked("geo", HUB, target_token=token)
    assert "cret" not in str(refused.value.as_dict())
    with pytest.raises(BadRequest) as refused:
        HttpPeer(HUB, token=token)
    assert "cret" not in str(refused.value.as_dict())


@pytest.mark.parametrize("url", ["http://u:s3cret@/geo", "http://u:s3cret@hub:x/geo", "http://u:s3cret@hub/geo?x=1"])
def test_a_secret_does_not_come_back_in_a_refusal(url: str) -> None:
    with pytest.raises(BadRequest) as refused:
        asked("geo", url)
    assert "s3cret" not in str(refused.value.as_dict())


# -- what it is called


def test_the_same_task_has_one_id_however_it_is_written() -> None:
    one = task(patterns=["a/#", "b/#"])
    assert one.id == task(patterns=["b/#", "a/#", "a/#"]).id
    assert one.id == task(target="http://u:p@hub:8000/barrels/geo", patterns=["a/#", "b/#"]).id
    assert one.id == task(patterns=["a/#", "b/#"], create_target=True, target_token="t").id


def test_another_end_filter_or_way_is_another_task() -> None:
    made = [
        task(),
        task("sea"),
        task(target="http://hub:8001/geo"),
        task(HUB, "geo"),
        task(continuous=True),
        task(both=True),
        task(leaves="purge"),
        task(patterns=["a/#"]),
        task(ids=["a"]),
        task(selector={"a": 1}),
    ]
    assert len({each.id for each in made}) == len(made)


def test_a_task_is_the_same_after_it_was_stored() -> None:
    one = task(ids=["b", "a"], selector={"a": {"$gt": 1}}, both=True)
    again = msgspec.json.decode(msgspec.json.encode(one), type=Task)
    assert (again, again.id) == (one, one.id)


# -- reports


def counted(**counts: int) -> Direction:
    return Direction("a", "b", counts=counts)


def stats(**figures: Any) -> dict[str, Any]:
    return {"id": "r", **Progress(lambda: 1.0).stats(), **figures}


def test_counts_and_refusals_go_on_from_what_was_kept() -> None:
    refusal = {"id": "x", "rev": "1-a", "error": "too_large", "reason": "…"}
    before = direction("a", "b", stats(written=5, refused=1, position="5-e", refusals=[refusal]), None)
    after = direction("a", "b", stats(written=2, refusals=[]), before)
    assert (after.counts["written"], after.counts["refused"], after.refusals) == (7, 1, [refusal])
    assert after.position == "5-e"


def test_refusals_are_named_up_to_a_hundred() -> None:
    many = [{"id": str(number), "rev": "1-a", "error": "e", "reason": "r"} for number in range(80)]
    kept = direction("a", "b", stats(refusals=many), direction("a", "b", stats(refusals=many), None)).refusals
    assert len(kept) == 100
    assert kept[-1]["id"] == "79"


def test_both_directions_are_summed_and_called_by_the_worse_one() -> None:
    one, other = counted(read=3, written=1), counted(read=4)
    one.behind, other.behind = 2, None
    one.state, other.state = "idle", "waiting"
    sums = summed([one, other])
    assert (sums["read"], sums["written"], sums["behind"]) == (7, 1, None)
    other.behind = 5
    assert summed([one, other])["behind"] == 7
    assert worst([one, other]) is other


def test_nothing_has_moved_where_only_time_passed() -> None:
    one = Report("idle", 1.0, at=5.0, directions=[counted(read=1)])
    two = Report("idle", 1.0, at=9.0, directions=[counted(read=1)])
    two.directions[0].rate = 3.0
    assert one.settled() == two.settled()
    two.directions[0].counts = {"read": 2}
    assert one.settled() != two.settled()
