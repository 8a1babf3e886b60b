"""`spile attach`, `fetch` and `detach`: with a service and without, through cut connections, and what is refused."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from attachment_tools import damage, digest
from cli_tools import TIMEOUT_S, Service, begun, on_terminal, spile, spile_process
from ports import free_port
from proxy import Proxy

from broker.cli import attachments_http
from broker.cli.files import Outgoing, opened, written
from feeds import Store
from feeds.errors import BadChecksum, BadRequest, Overloaded, SpileError
from listeners.errors import Unreached

LARGE = os.urandom(1 << 20) * 40


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("data")) as running:
        assert spile("create", "geo", "--url", running.url).code == 0
        yield running


@pytest.fixture(params=["service", "store"])
def at(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """A service, or a store that each command opens itself."""
    if request.param == "service":
        return ("--url", request.getfixturevalue("service").url)
    folder = str(tmp_path / "store")
    with Store.open(folder) as store:
        store.create("geo")
    return ("--database", folder)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "large.bin"
    path.write_bytes(LARGE)
    return path


def test_a_file_goes_in_and_comes_out(at: tuple[str, str], file: Path, tmp_path: Path) -> None:
    attached = spile("attach", "geo", "in and/out", str(file), "--type", "image/x-raw", *at)
    assert (attached.code, attached.err) == (0, "")
    assert attached.value["digest"] == digest(LARGE) and attached.value["length"] == len(LARGE)
    out = tmp_path / "out.bin"
    fetched = spile("fetch", "geo", "in and/out", "large.bin", "-o", str(out), *at)
    assert fetched.code == 0, fetched.err
    assert fetched.value["content_type"] == "image/x-raw" and fetched.value["rev"] == attached.value["rev"]
    assert out.read_bytes() == LARGE
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["large.bin", "out.bin"]


def test_several_files_are_attached_one_after_the_other(at: tuple[str, str], tmp_path: Path) -> None:
    paths = []
    for name in ("a.txt", "b.json", "c d.png"):
        (tmp_path / name).write_bytes(name.encode())
        paths.append(str(tmp_path / name))
    begun = spile("put", "geo", "several", *at, stdin=b"{}").value
    told = spile("attach", "geo", "several", *paths, "--rev", begun["rev"], *at)
    assert [each["name"] for each in told.values] == ["a.txt", "b.json", "c d.png"]
    stubs = spile("get", "geo", "several", *at).value["_attachments"]
    kinds = {name: stub["content_type"] for name, stub in stubs.items()}
    assert kinds == {"a.txt": "text/plain", "b.json": "application/json", "c d.png": "image/png"}
    stale = spile("attach", "geo", "several", paths[0], "--name", "d", "--rev", begun["rev"], *at)
    assert stale.code == 1 and "[conflict]" in stale.err


def test_standard_input_and_output_carry_attachments(at: tuple[str, str]) -> None:
    data = LARGE[:5_000_000]
    attached = spile_process("attach", "geo", "piped", "-", "--name", "dump.sql", *at, stdin=data)
    assert attached.code == 0, attached.err
    fetched = spile_process("fetch", "geo", "piped", "dump.sql", "-o", "-", *at)
    assert (fetched.code, sha256(fetched.out).hexdigest()) == (0, sha256(data).hexdigest())


def test_an_empty_file_is_an_attachment_like_others(at: tuple[str, str], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    assert spile("attach", "geo", "empty", str(empty), *at).value["length"] == 0
    assert spile("fetch", "geo", "empty", "empty", "-o", str(tmp_path / "out"), *at).code == 0
    assert (tmp_path / "out").read_bytes() == b""


def test_an_attachment_is_taken_away(at: tuple[str, str], tmp_path: Path) -> None:
    note = tmp_path / "note"
    note.write_bytes(b"a note")
    first = spile("attach", "geo", "taken", str(note), *at).value
    assert spile("detach", "geo", "taken", "note", *at).value["name"] == "note"
    out = str(tmp_path / "out")
    gone = spile("fetch", "geo", "taken", "note", "-o", out, *at)
    assert gone.code == 1 and "[not_found]" in gone.err and not Path(out).exists()
    assert spile("fetch", "geo", "taken", "note", "--rev", first["rev"], "-o", out, *at).code == 0
    assert spile("detach", "geo", "taken", "note", *at).code == 1


def test_wrong_use_is_told_before_anything_is_done(tmp_path: Path) -> None:
    assert spile("attach", "geo", "d", "-").code == 2
    assert spile("attach", "geo", "d", "a", "b", "--name", "c").code == 2
    assert spile("attach", "geo", "d", "a", "--blobs", "somewhere").code == 2
    assert spile("fetch", "geo", "d", "a/..").code == 2
    secret = spile("fetch", "geo", "d", "a", "--database", str(tmp_path), "--blobs", "s3://me:secret@bucket")
    assert secret.code == 2 and "secret" not in secret.err


def test_a_file_that_is_not_there_is_refused(at: tuple[str, str], tmp_path: Path) -> None:
    missing = spile("attach", "geo", "d", str(tmp_path / "missing"), *at)
    assert missing.code == 1 and "missing is not there" in missing.err
    assert spile("attach", "geo", "d", str(tmp_path), *at).code == 1


def test_a_folder_that_is_not_there_is_refused(at: tuple[str, str], tmp_path: Path) -> None:
    note = tmp_path / "note"
    note.write_bytes(b"a note")
    spile("attach", "geo", "nowhere", str(note), *at)
    refused = spile("fetch", "geo", "nowhere", "note", "-o", str(tmp_path / "no" / "out"), *at)
    assert refused.code == 1 and "cannot be written" in refused.err


def test_nobody_there_is_told_as_such_after_a_short_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert attachments_http.FIRST_S == 10
    monkeypatch.setattr(attachments_http, "FIRST_S", 0.5)
    nobody = ("--url", f"http://127.0.0.1:{free_port()}")
    fetched = spile("fetch", "geo", "d", "a", "-o", str(tmp_path / "out"), *nobody)
    assert (fetched.code, list(tmp_path.iterdir())) == (3, [])
    path = tmp_path / "file"
    path.write_bytes(b"x")
    assert spile("attach", "geo", "d", str(path), *nobody).code == 3


@pytest.mark.parametrize("met", [None, Overloaded("Later")], ids=["an answer", "a refusal"])
def test_a_service_that_was_met_is_waited_for_longer(met: SpileError | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attachments_http, "FIRST_S", 0.0)
    link = attachments_http.HttpAttachments(Nowhere(), 60)
    with pytest.raises(Unreached):
        link.persist(answering(Unreached("Nobody there")))
    assert link.persist(answering(*([] if met is None else [met]))) == "there"
    assert link.persist(answering(Unreached("Away"), Unreached("Away"))) == "there"


def answering(*errors: SpileError) -> Callable[[], str]:
    """A call that fails with these first."""
    left = list(errors)

    def call() -> str:
        if left:
            raise left.pop(0)
        return "there"

    return call


class Nowhere:
    """What sends nothing."""

    def send(self, *given: Any, **named: Any) -> Any:
        raise Unreached

    def streamed(self, *given: Any, **named: Any) -> Any:
        raise Unreached


@pytest.mark.parametrize("cut_at", [100, 6_000_000, 20_000_000])
def test_an_upload_goes_on_after_a_cut_connection(service: Service, file: Path, cut_at: int) -> None:
    proxy = Proxy(lambda: service.http)
    try:
        proxy.cut_after(cut_at, "up")
        attached = spile("attach", "geo", f"cut-{cut_at}", str(file), "--url", f"http://127.0.0.1:{proxy.port}")
        assert attached.code == 0, attached.err
        assert attached.value["digest"] == digest(LARGE)
        assert proxy.cuts == 1
    finally:
        proxy.close()


def test_an_upload_goes_on_after_answers_that_were_lost(service: Service, file: Path) -> None:
    proxy = Proxy(lambda: service.http)
    try:
        for bytes_down in (40, 700, 1_400):
            proxy.cut_after(bytes_down, "down")
            id = f"lost-{bytes_down}"
            attached = spile("attach", "geo", id, str(file), "--url", f"http://127.0.0.1:{proxy.port}")
            assert attached.code == 0, attached.err
            stub = spile("get", "geo", id, "--url", service.url).value
            assert stub["_rev"] == attached.value["rev"] and stub["_rev"].startswith("1-")
        assert proxy.cuts == 3
    finally:
        proxy.close()


def test_a_download_goes_on_after_a_cut_connection(service: Service, file: Path, tmp_path: Path) -> None:
    spile("attach", "geo", "down", str(file), "--url", service.url)
    proxy = Proxy(lambda: service.http)
    try:
        for bytes_down in (60, 3_000_000, 30_000_000):
            proxy.cut_after(bytes_down, "down")
            out = tmp_path / f"out-{bytes_down}"
            url = f"http://127.0.0.1:{proxy.port}"
            fetched = spile("fetch", "geo", "down", "large.bin", "-o", str(out), "--url", url)
            assert fetched.code == 0, fetched.err
            assert out.read_bytes() == LARGE
        assert proxy.cuts == 3
    finally:
        proxy.close()


def test_an_upload_goes_on_when_the_service_is_killed_and_comes_back(tmp_path: Path, file: Path) -> None:
    running = Service(tmp_path / "data")
    try:
        spile("create", "geo", "--url", running.url)
        proxy = Proxy(lambda: running.http)
        try:
            url = f"http://127.0.0.1:{proxy.port}"
            attaching = begun("attach", "geo", "d", str(file), "--url", url)
            blobs = tmp_path / "data" / "blobs" / "files"
            while not (blobs.is_dir() and any(path.stat().st_size > 4_000_000 for path in blobs.iterdir())):
                assert attaching.poll() is None
            proxy.freeze()
            running.restart(signal.SIGKILL)
            proxy.heal()
            _, told = attaching.communicate(timeout=TIMEOUT_S)
            assert attaching.returncode == 0, told
        finally:
            proxy.close()
        out = tmp_path / "out"
        spile("fetch", "geo", "d", "large.bin", "-o", str(out), "--url", running.url)
        assert out.read_bytes() == LARGE
    finally:
        running.stop()


def stopped_in_the_middle(service: Service, id: str, file: Path, how: signal.Signals, at_least: int) -> str:
    """What a command told that was stopped when so many bytes had been sent."""
    with Proxy(lambda: service.http) as proxy:
        proxy.freeze_at(at_least)
        attaching = begun("attach", "geo", id, str(file), "--url", f"http://127.0.0.1:{proxy.port}")
        ends_at = time.monotonic() + TIMEOUT_S
        while proxy.carried["up"] < at_least:
            assert attaching.poll() is None and time.monotonic() < ends_at
            time.sleep(0.005)
        attaching.send_signal(how)
        told = attaching.communicate(timeout=TIMEOUT_S)[1].decode()
        assert attaching.returncode != 0
        return told


def unfinished(service: Service, id: str) -> list[int]:
    """How many bytes each upload for a document has that is not finished."""
    uploads = f"{service.url}/barrels/geo/uploads"
    with httpx.Client(trust_env=False, timeout=TIMEOUT_S) as client:
        listed = client.get(uploads, params={"doc": id}).json()["results"]
        return [
            int(client.head(f"{uploads}/{each['upload']}").headers["upload-offset"])
            for each in listed
            if not each["complete"]
        ]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_second_run_sends_only_the_rest_of_what_the_first_did_not(
    service: Service, file: Path, how: signal.Signals
) -> None:
    id = f"stopped by {how.name}"
    stopped_in_the_middle(service, id, file, how, 20_000_000)
    (size,) = unfinished(service, id)
    assert size > 16_000_000
    with Proxy(lambda: service.http) as proxy:
        attached = spile("attach", "geo", id, str(file), "--url", f"http://127.0.0.1:{proxy.port}")
        assert (attached.code, attached.value["digest"]) == (0, digest(LARGE)), attached.err
        assert proxy.carried["up"] < len(LARGE) - size + 100_000
    assert unfinished(service, id) == []


def test_what_was_sent_of_another_file_is_of_no_use(
    service: Service, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stopped_in_the_middle(service, "another", file, signal.SIGKILL, 20_000_000)
    status = file.stat()
    other = b"other" + LARGE[5:]
    file.write_bytes(other)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    attached = spile("attach", "geo", "another", str(file), "--url", service.url)
    assert (attached.code, attached.value["digest"]) == (0, digest(other)), attached.err
    assert "of no use" in caplog.text
    assert unfinished(service, "another") == []


def test_a_file_that_was_changed_meanwhile_is_sent_anew(
    service: Service, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stopped_in_the_middle(service, "changed", file, signal.SIGKILL, 20_000_000)
    file.write_bytes(LARGE[::-1])
    attached = spile("attach", "geo", "changed", str(file), "--url", service.url)
    assert (attached.code, attached.value["digest"]) == (0, digest(LARGE[::-1])), attached.err
    assert caplog.text == ""


def test_a_file_that_was_sent_already_is_not_sent_again(service: Service, file: Path) -> None:
    spile("attach", "geo", "sent", str(file), "--url", service.url)
    spile("detach", "geo", "sent", file.name, "--url", service.url)
    with Proxy(lambda: service.http) as proxy:
        attached = spile("attach", "geo", "sent", str(file), "--url", f"http://127.0.0.1:{proxy.port}")
        assert (attached.code, attached.value["digest"]) == (0, digest(LARGE)), attached.err
        assert proxy.carried["up"] < 100_000


def test_two_commands_attach_one_file_at_once(service: Service, file: Path) -> None:
    both = [begun("attach", "geo", "twice", str(file), "--url", service.url) for _ in range(2)]
    told = [each.communicate(timeout=TIMEOUT_S)[1].decode() for each in both]
    assert 0 in [each.returncode for each in both], told
    assert all(each.returncode == 0 or "[conflict]" in said for each, said in zip(both, told, strict=True)), told
    assert spile("get", "geo", "twice", "--url", service.url).value["_attachments"][file.name]["digest"] == digest(
        LARGE
    )


def test_a_damaged_attachment_is_told_and_leaves_no_file(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store") as store:
        store.create("geo").attach("d", "note", b"a note on a disk" * 20)
    damage(tmp_path / "store" / "blobs", b"a note on a disk" * 20)
    fetched = spile("fetch", "geo", "d", "note", "-o", str(tmp_path / "out"), "--database", str(tmp_path / "store"))
    assert fetched.code == 1 and "[bad_checksum]" in fetched.err
    assert not (tmp_path / "out").exists()


def test_a_terminal_sees_sentences_and_progress(service: Service, file: Path, tmp_path: Path) -> None:
    code, shown = on_terminal("attach", "geo", "shown", str(file), "--url", service.url)
    assert code == 0 and "with large.bin, 41,943,040 bytes" in shown and "attaching large.bin" in shown
    out = str(tmp_path / "out")
    code, shown = on_terminal("fetch", "geo", "shown", "large.bin", "-o", out, "--url", service.url)
    assert code == 0 and "41,943,040 bytes" in shown


def test_a_file_is_read_again_from_where_the_service_is(file: Path) -> None:
    with opened(str(file)) as outgoing:
        assert outgoing.part(0, 10) == LARGE[:10]
        assert outgoing.part(10, 1_000_000) == LARGE[10:1_000_010]
        assert outgoing.part(5, 20) == LARGE[5:25]
        assert outgoing.part(900_000, len(LARGE)) == LARGE[900_000:]
        assert outgoing.part(len(LARGE), 10) == b""
        assert outgoing.digest == sha256(LARGE).digest()


def test_what_of_a_file_is_passed_over_goes_into_its_digest(file: Path) -> None:
    with opened(str(file)) as outgoing:
        assert outgoing.part(0, 10) == LARGE[:10]
        assert outgoing.part(3_000_000, 10) == LARGE[3_000_000:3_000_010]
        assert outgoing.part(5, 10) == LARGE[5:15]
        assert outgoing.part(30_000_000, len(LARGE)) == LARGE[30_000_000:]
        assert outgoing.digest == sha256(LARGE).digest()
        with pytest.raises(BadRequest, match="ends before"):
            outgoing.part(len(LARGE) + 1, 1)


def test_of_a_pipe_only_the_last_part_is_read_again() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"0123456789")
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        outgoing = Outgoing("standard input", file, None)
        assert outgoing.part(0, 5) == b"01234"
        assert outgoing.part(2, 5) == b"23456"
        with pytest.raises(BadRequest, match="cannot be read again"):
            outgoing.part(0, 5)
        assert outgoing.part(7, 5) == b"789"
        assert outgoing.digest == sha256(b"0123456789").digest()


def test_what_came_wrong_gets_no_name(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"from before")
    with pytest.raises(BadChecksum), written(str(target)) as into:
        into.add(b"these are other bytes")
        into.check(digest(b"wanted"))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert target.read_bytes() == b"from before"
