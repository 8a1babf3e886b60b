"""A PostgreSQL of the tests' own: a temporary cluster on a free loopback port, and fresh databases in it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ports import free_port

_START_S = 30.0
# Text sorts by language here, so that whatever is to be compared by bytes has to say so.
# The superuser needs no password: the tests' time would go into hashing it.
_LOGINS = "local all all trust\nhost all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
_INITDB = ("--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-sync")
_LOCALE = ("--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en")
_FAST = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "autovacuum": "off"}
PASSWORD = "not/a:secret@%41"  # everything in it has to be encoded in a URL
QUOTED = "not%2Fa%3Asecret%40%2541"


def binary(name: str) -> str | None:
    """Where one of PostgreSQL's programs is; None where it is not installed."""
    found = shutil.which(name)
    if found is not None and name != "postgres" and name != "initdb":
        return found
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    return str(versions[-1]) if versions else found


def installed() -> bool:
    """Whether a cluster can be made here."""
    return binary("initdb") is not None and binary("postgres") is not None


class Cluster:
    """One server and its folder."""

    def __init__(self, *, durable: bool = False, **settings: Any) -> None:
        """Make and start it. `durable` syncs to the disk as in production; other arguments are server settings."""
        self.folder = Path(tempfile.mkdtemp(prefix="spile-postgres-"))
        self._owner = _owner()
        if self._owner is not None:
            os.chown(self.folder, self._owner, -1)
        self.data = self.folder / "data"
        self._settings = {**({} if durable else _FAST), **settings}
        self._process: subprocess.Popen[bytes] | None = None
        self._count = 0
        command = [str(binary("initdb")), "-D", str(self.data), *_INITDB, *_LOCALE]
        done = subprocess.run(command, capture_output=True, text=True, check=False, **self._as())
        if done.returncode:
            raise RuntimeError(f"initdb failed: {done.stdout}{done.stderr}")
        (self.data / "pg_hba.conf").write_text(_LOGINS)
        self.port = free_port()
        self.start()

    def start(self) -> None:
        """Start the server, and wait until it takes connections."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.folder,
            "max_connections": 100,
            **self._settings,
        }
        command = [str(binary("postgres")), "-D", str(self.data)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, **self._as())
        give_up = time.monotonic() + _START_S
        while True:
            try:
                self.connect("postgres").close()
                return
            except Exception as error:
                if time.monotonic() > give_up or self._process.poll() is not None:
                    log_text = (self.folder / "log").read_text(errors="replace")
                    raise RuntimeError(f"PostgreSQL did not start: {error}\n{log_text[-2000:]}") from error
                time.sleep(0.02)

    def stop(self) -> None:
        """End the server as an operator would, cutting connections."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End every process of the server at once, as a power cut would."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self._end(signal.SIGKILL)
        for child in children:
            try:
                os.kill(int(child), signal.SIGKILL)
            except ProcessLookupError:
                continue
        # A new server refuses to start while one of the old one's processes holds the shared memory.
        for child in children:
            while Path(f"/proc/{child}").exists() and _state(child) != "Z":
                time.sleep(0.005)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """Stop the server, and remove all that it wrote."""
        self._end(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str, *, user: str = "postgres", port: int | None = None) -> str:
        """The URL of a database; of anybody but the superuser with a password."""
        who = user if user == "postgres" else f"{user}:{QUOTED}"
        return f"postgresql://{who}@127.0.0.1:{port or self.port}/{database}"

    def database(self, template: str = "template0") -> str:
        """The name of a new database."""
        self._count += 1
        name = f"spile_{self._count}"
        self.run(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return name

    def drop(self, database: str) -> None:
        """Remove a database, whoever uses it."""
        self.run(f'DROP DATABASE "{database}" WITH (FORCE)')

    def user(self, name: str) -> str:
        """Make a user who may log in with the password; its name."""
        self.run(f"CREATE ROLE \"{name}\" LOGIN PASSWORD '{PASSWORD}'")
        return name

    def run(self, sql: str, *parameters: Any, database: str = "postgres") -> list[Any]:
        """Run a statement as the superuser; its rows, if it gives any."""
        with self.connect(database) as connection:
            result = connection.execute(sql, parameters or None)
            return result.fetchall() if result.description else []

    def connect(self, database: str) -> Any:
        """A connection of the superuser's."""
        import psycopg

        return psycopg.connect(host="127.0.0.1", port=self.port, user="postgres", dbname=database, autocommit=True)

    def _as(self) -> dict[str, Any]:
        """How a process is started: the server refuses to run as root."""
        told: dict[str, Any] = {"cwd": self.folder, "stdin": subprocess.DEVNULL}
        if self._owner is not None:
            told |= {"user": self._owner, "group": pwd.getpwuid(self._owner).pw_gid, "extra_groups": []}
        return told


def _owner() -> int | None:
    """Who runs the server when this is root: the package's user, or nobody."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    raise RuntimeError("there is no user that may run PostgreSQL")


def _state(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


@contextmanager
def cluster(*, durable: bool = False, **settings: Any) -> Iterator[Cluster]:
    """A cluster for the length of the block."""
    made = Cluster(durable=durable, **settings)
    try:
        yield made
    finally:
        made.close()


if __name__ == "__main__":  # python tests/tools/postgres.py: a cluster to try things on, until Enter
    with cluster(durable="--durable" in sys.argv) as running:
        print(running.url(running.database()), flush=True)
        sys.stdin.readline()
