"""Documents that describe replications, beside the tasks of a store: what one change does to the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from broker.replication.documents import Register
from broker.replication.ledger import Ledger
from broker.replication.reports import Report
from broker.replication.task import Asked, Login, Secrets, task_of
from feeds import Store
from feeds.errors import Conflict, Deleted, NotFound, TooLarge
from feeds.storage import replicator


@dataclass
class Desk:
    """What asks a store about its documents, and runs nothing."""

    ledger: Ledger
    register: Register

    def put(self, id: str, rev: str | None = None, target: str = "b", **more: Any) -> str:
        task, secrets = task_of(Asked("a", target))
        body = {"source": "a", "target": target}
        return self.register.put(id, rev, body, task, more.get("secrets", secrets), "me").rev

    def tasks(self) -> dict[str, str | None]:
        """The targets of tasks, and which documents describe them."""
        return {entry.task.target: entry.row.document for entry in self.ledger.entries()}

    def end(self, state: str = "done") -> None:
        """All tasks come to their end."""
        told = [(entry, Report(state, 1.0), True) for entry in self.ledger.entries() if entry.runs]
        self.ledger.tell(told, None)

    def changed(self, seq: int = 0) -> list[tuple[str, int, bool]]:
        """Which documents have changed since, at which generation, and whether they were deleted."""
        found = self.register.after(seq)
        return [(each.id, int(each.stored.rev.partition("-")[0]), each.deleted) for each in found]


@pytest.fixture
def desk(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setattr(replicator, "DELETIONS_KEPT", 5)
    with Store.open(database_url) as store:
        ledger = Ledger(store, 3)
        yield Desk(ledger, Register(ledger.rows, 3))


def test_a_document_and_its_task_come_change_and_go_together(desk: Desk) -> None:
    first = desk.put("x")
    assert desk.tasks() == {"b": "x"}
    with pytest.raises(Conflict):
        desk.put("x", target="c")
    with pytest.raises(Conflict):
        desk.put("y", "1-a")
    second = desk.put("x", first, target="c")
    assert desk.tasks() == {"c": "x"}
    with pytest.raises(Conflict):
        desk.register.delete("x", first)
    with pytest.raises(Conflict):
        desk.register.delete("x", None)
    desk.register.delete("x", second)
    assert desk.tasks() == {}
    with pytest.raises(Deleted):
        desk.register.get("x")
    with pytest.raises(Deleted):
        desk.register.delete("x", second)
    with pytest.raises(NotFound):
        desk.register.get("y")
    assert desk.changed() == [("x", 3, True)]
    desk.put("x")
    assert (desk.changed(), desk.tasks()) == ([("x", 4, False)], {"b": "x"})


def test_the_end_of_a_task_and_another_run_are_changes_of_its_document(desk: Desk) -> None:
    desk.put("x")
    desk.end()
    found = desk.register.get("x")
    assert (desk.changed(1), found.ended, found.told()["state"]) == ([("x", 2, False)], True, "done")
    (entry,) = desk.ledger.entries()
    desk.ledger.resume(entry.id)
    assert (desk.changed(2), desk.register.get("x").ended) == ([("x", 3, False)], False)
    desk.end("failed")
    desk.ledger.create(entry.task, Secrets(), "me")
    assert (desk.changed(3), desk.register.get("x").ended) == ([("x", 5, False)], False)
    desk.ledger.cancel(entry.id)
    assert (desk.changed(5), desk.tasks()) == ([("x", 6, True)], {})


def test_a_document_is_read_with_its_task_as_both_were_at_one_moment(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is deleted while it is read has not failed for that."""
    reads = {name: getattr(replicator.StoredDocuments, name) for name in ("after", "get")}

    def deleted_meanwhile(name: str) -> Any:
        def read(*given: Any) -> Any:
            found = reads[name](*given)
            desk.register.delete(name, revs[name])
            return found

        return read

    revs = {"get": desk.put("get"), "after": desk.put("after", target="c")}
    for name in reads:
        monkeypatch.setattr(replicator.StoredDocuments, name, deleted_meanwhile(name))
    assert not desk.register.get("get").ended
    assert [each.id for each in desk.register.after() if not each.deleted and not each.ended] == ["after"]
    assert desk.tasks() == {}


def test_two_documents_of_one_replication_are_told_apart(desk: Desk) -> None:
    desk.put("x")
    rev = desk.put("y")
    (told,) = [each.told() for each in desk.register.after() if each.id == "y"]
    assert (told["state"], told["source"], told["target"], told["id"]) == ("failed", "a", "b", None)
    assert "document `y` already started, triggered by document `x`" in told["reason"]
    assert desk.tasks() == {"b": "x"}
    rev = desk.put("y", rev, target="c")
    assert desk.tasks() == {"b": "x", "c": "y"}
    rev = desk.put("y", rev)
    assert (desk.tasks(), desk.register.get("y").told()["state"]) == ({"b": "x"}, "failed")
    desk.register.delete("y", rev)
    assert desk.tasks() == {"b": "x"}


def test_when_the_first_one_has_ended_the_second_begins_and_the_first_stays_as_it_was(desk: Desk) -> None:
    desk.put("x")
    desk.end()
    before = desk.register.get("x")
    desk.put("y")
    after = desk.register.get("x")
    assert (desk.tasks(), after.stored.rev, after.entry) == ({"b": "y"}, before.stored.rev, None)
    assert {name: after.told()[name] for name in ("id", "state", "source", "created")} == {
        name: before.told()[name] for name in ("id", "state", "source", "created")
    }
    desk.end()
    desk.put("x", after.stored.rev)
    assert (desk.tasks(), desk.register.get("y").told()["state"]) == ({"b": "x"}, "done")


def test_a_task_without_a_document_gets_one(desk: Desk) -> None:
    entry, _ = desk.ledger.create(*task_of(Asked("a", "b")), "somebody")
    desk.put("x")
    assert desk.tasks() == {"b": "x"}
    assert desk.ledger.entry(entry.id).row.version > entry.row.version


def test_a_task_that_is_asked_for_again_with_other_files_uses_these(desk: Desk) -> None:
    entry, _ = desk.ledger.create(*task_of(Asked("a", "https://h/one")), "me")
    again, made = desk.ledger.create(*task_of(Asked("a", "https://h/one?ca=/etc/ca.pem")), "me")
    assert (again.id, made, again.task.target) == (entry.id, False, "https://h/one?ca=/etc/ca.pem")
    assert again.row.version > entry.row.version  # by which whoever runs it begins anew
    same, _ = desk.ledger.create(again.task, Secrets(), "me")
    assert same.row.version == again.row.version


def test_an_end_keeps_its_login_until_another_is_given_or_it_is_another_end(desk: Desk) -> None:
    one, other = "http://h/one", "http://h/other"
    rev = desk.put("x", target=one, secrets=Secrets(None, Login("u", "first")))

    def login() -> Login | None:
        (entry,) = desk.ledger.entries()
        return entry.secrets.target

    rev = desk.put("x", rev, target=one)
    assert login() == Login("u", "first")
    rev = desk.put("x", rev, target=one + "/", secrets=Secrets(None, Login("u", "second")))
    assert login() == Login("u", "second")
    desk.put("x", rev, target=other)
    assert login() is None


def test_there_are_only_so_many_and_deletions_are_forgotten_in_time(desk: Desk) -> None:
    revs = [desk.put(name, target=name) for name in ("x", "y", "z")]
    with pytest.raises(TooLarge):
        desk.put("w", target="w")
    desk.put("x", revs[0], target="w")
    desk.end()
    for number in range(27):
        desk.put(f"n{number}", target="w")
        desk.end()
    with pytest.raises(TooLarge):
        desk.put("one more", target="w")
    for number in range(10):
        id = f"n{number}"
        desk.register.delete(id, desk.register.get(id).stored.rev)
    assert [id for id, _, deleted in desk.changed() if deleted] == [f"n{number}" for number in range(4, 10)]
