"""A small interpreter of compose files, which runs the services as processes of this machine, in the file's order.

It knows what the project's own file uses. What a container has to itself, a process gets by rewriting: folders of
volumes, binds and tmpfs stand below one temporary folder, names of services are 127.0.0.1, and ports are free ones.
Users are those of the file where this is root and they can reach the checkout. Limits of containers (networks,
capabilities, memory) are not there.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import yaml
from dockerfile import Image
from ports import free_port
from running import until

_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?:(:[-?])([^}]*))?\})")


class MissingVariable(Exception):
    """A variable that has to be set is not; the text is what Docker Compose prints."""


def interpolated(value: Any, environment: Mapping[str, str], place: str = "") -> Any:
    """A part of a compose file with its variables filled in."""
    if isinstance(value, dict):
        return {name: interpolated(each, environment, f"{place}.{name}") for name, each in value.items()}
    if isinstance(value, list):
        return [interpolated(each, environment, f"{place}.{at}") for at, each in enumerate(value)]
    if not isinstance(value, str):
        return value

    def filled(found: re.Match[str]) -> str:
        dollar, name, how, told = found.groups()
        if dollar:
            return "$"
        if environment.get(name):
            return environment[name]
        if how == ":-":
            return str(told)
        raise MissingVariable(
            f"error while interpolating {place.lstrip('.')}: required variable {name} is missing a value: {told}"
        )

    return _VARIABLE.sub(filled, value)


class Service:
    """One service of a project: what its container would run, and the process that runs instead."""

    def __init__(self, name: str, told: dict[str, Any], image: Image) -> None:
        self.name = name
        self.told = told
        self.image = image
        self.process: subprocess.Popen[bytes] | None = None
        self.folders: dict[str, Path] = {}  # by where they stand in the container

    @property
    def user(self) -> int:
        """The number of the user that it runs as."""
        return int(str(self.told.get("user", self.image.user)).partition(":")[0])

    @property
    def health(self) -> Sequence[str]:
        """What its health check runs; empty where it has none."""
        told = self.told.get("healthcheck", {})
        return () if told.get("disable") else told.get("test", self.image.health)

    @property
    def needs(self) -> dict[str, str]:
        """The services that it waits for, each with the condition."""
        return {name: each["condition"] for name, each in self.told.get("depends_on", {}).items()}

    @property
    def command(self) -> list[str]:
        """What it runs."""
        own = self.told.get("entrypoint")
        entrypoint = self.image.entrypoint if own is None else own
        command = self.told.get("command", self.image.command if own is None else ())
        return [*entrypoint, *command]


class Project:
    """The services of a compose file. `down` ends them and removes all that they wrote."""

    def __init__(
        self, file: Path, environment: Mapping[str, str], images: Mapping[str, Image], programs: Mapping[str, str]
    ) -> None:
        """`programs` are variables with which processes find the programs of their images, such as PATH."""
        told = interpolated(yaml.safe_load(file.read_text()), environment)
        self.services = {
            name: Service(name, each, images[each["image"].partition(":")[0]])
            for name, each in told["services"].items()
        }
        self.started: list[str] = []
        self.ports = {port: free_port() for image in images.values() for port in image.ports}
        self.place = Path(tempfile.mkdtemp(prefix="spile-compose-"))
        self.place.chmod(0o755)
        self._base = file.parent
        self._programs = programs
        for service in self.services.values():
            self._furnish(service)

    # Up and down.

    def up(self) -> None:
        """Start every service when what it depends on is as it has to be, and wait until all are healthy."""
        while left := [service for service in self.services.values() if service.name not in self.started]:
            service = next(each for each in left if set(each.needs) <= set(self.started))
            for name, condition in service.needs.items():
                self.wait(name, condition)
            self.start(service.name)
        for service in self.services.values():
            if service.health:
                self.wait(service.name, "service_healthy")

    def start(self, name: str) -> None:
        """Start a service's process."""
        service = self.services[name]
        with self._log(name).open("ab") as log:
            service.process = subprocess.Popen(
                self._rewritten(service, service.command), stdout=log, stderr=log, **self._ways(service)
            )
        self.started.append(name)

    def kill(self, name: str) -> None:
        """End all processes of a service as a power cut would."""
        process = self.services[name].process
        assert process is not None
        if process.poll() is None:
            first = psutil.Process(process.pid)
            family = [first, *first.children(recursive=True)]
            for each in family:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
            psutil.wait_procs(family[1:], 10)
        process.wait()

    def down(self) -> dict[str, int]:
        """Stop in reverse order; the exit codes."""
        codes = {}
        try:
            for name in reversed(dict.fromkeys(self.started)):
                process = self.services[name].process
                assert process is not None
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
                codes[name] = process.wait(60)
        finally:
            for name in self.started:
                self.kill(name)
            shutil.rmtree(self.place)
        return codes

    # How they are.

    def said(self, name: str) -> str:
        """What a service has written."""
        return self._log(name).read_text(errors="replace")

    def is_up(self, name: str) -> bool:
        """Whether its process runs."""
        process = self.services[name].process
        return process is not None and process.poll() is None

    def is_healthy(self, name: str) -> bool:
        """Run its health check once."""
        service = self.services[name]
        how, *words = service.health
        command = words if how == "CMD" else ["sh", "-c", *words]
        done = subprocess.run(
            self._rewritten(service, command), capture_output=True, timeout=30, check=False, **self._ways(service)
        )
        return done.returncode == 0

    def wait(self, name: str, condition: str) -> None:
        """Wait until a service is as a condition says."""
        process = self.services[name].process
        assert process is not None
        if condition == "service_completed_successfully":
            assert process.wait(60) == 0, self.said(name)
        elif condition == "service_healthy":
            until(lambda: not self.is_up(name) or self.is_healthy(name), f"a healthy {name}", 60)
            assert self.is_up(name), self.said(name)
        else:
            assert condition == "service_started"

    # What a container would have to itself.

    def _log(self, name: str) -> Path:
        return self.place / f"{name}.log"

    def _furnish(self, service: Service) -> None:
        """Make the folders, and copy what is bound into the container with its ports and places."""
        read_only = service.told.get("read_only", False)
        binds: dict[str, Path] = {}
        folders = {service.image.folder: not read_only} if service.image.folder != "/" else {}
        for each in service.told.get("tmpfs", ()):
            folders[each.partition(":")[0]] = True
        for target, writable in folders.items():
            service.folders[target] = self._folder(service, f"{service.name}{target}", writable)
        for each in service.told.get("volumes", ()):
            source, target, *_ = each.split(":")
            if source.startswith("."):
                binds[target] = self._base / source
                service.folders[target] = self.place / service.name / "binds" / source.replace("/", "_")
            else:
                service.folders[target] = self._folder(service, f"volumes/{source}", True)
        for target, source_folder in binds.items():
            copy = service.folders[target]
            shutil.copytree(source_folder, copy, ignore=shutil.ignore_patterns("__pycache__"))
            for path in copy.rglob("*"):
                if path.is_file():
                    path.write_text(self._text(service, path.read_text()))

    def _folder(self, service: Service, name: str, writable: bool) -> Path:
        folder = self.place / name
        folder.mkdir(parents=True, exist_ok=True)
        if not writable:
            folder.chmod(0o555)
        elif os.geteuid() == 0:
            os.chown(folder, self._uid(service), -1)
        return folder

    def _rewritten(self, service: Service, command: Sequence[str]) -> list[str]:
        """A command for this machine; behind `--host` the name of a service is one."""
        words = [self._text(service, word) for word in command]
        return [
            "127.0.0.1" if word in self.services and before in ("-h", "--host") else word
            for before, word in zip(["", *words], words, strict=False)
        ]

    def _text(self, service: Service, text: str) -> str:
        """A text with the places, hosts and ports of this machine."""
        places = "|".join(map(re.escape, sorted(service.folders, key=len, reverse=True))) or "(?!)"
        hosts, ports = "|".join(self.services), "|".join(map(str, self.ports))
        kept = re.escape(str(self._base))  # the project itself may stand below a folder of that name
        pattern = rf"""(?P<kept>{kept})|(?:(?<![\w/.-])|(?<=file://))(?P<place>{places})(?=[/\s"':;]|$)
            |(?<=[@/])(?P<host>{hosts})(?=:) |(?P<all>0\.0\.0\.0) |(?<![\w.-])(?P<port>{ports})(?![\w.-])"""

        def here(found: re.Match[str]) -> str:
            if found["kept"]:
                return found["kept"]
            if found["place"]:
                return str(service.folders[found["place"]])
            return str(self.ports[int(found["port"])]) if found["port"] else "127.0.0.1"

        return re.sub(pattern, here, text, flags=re.VERBOSE)

    def _ways(self, service: Service) -> dict[str, Any]:
        """How a process of the service runs: its variables, its folder, its user."""
        own = {**service.image.environment, **service.told.get("environment", {})}
        variables = {name: self._text(service, str(value)) for name, value in own.items()}
        ways: dict[str, Any] = {
            "env": {**variables, **self._programs},
            "cwd": service.folders.get(service.told.get("working_dir", service.image.folder), "/"),
            "stdin": subprocess.DEVNULL,
        }
        if os.geteuid() == 0:
            uid = self._uid(service)
            ways |= {
                "user": uid,
                "group": uid if uid == service.user else pwd.getpwuid(uid).pw_gid,
                "extra_groups": [],
            }
        return ways

    def _uid(self, service: Service) -> int:
        """The file's user; another without rights where its program insists on a name; this one where it cannot
        reach what it has to read."""
        if service.image.named_user:
            return _named()
        if all(reachable(Path(place)) for place in service.image.reaches):
            return service.user
        return os.geteuid()


def reachable(path: Path) -> bool:
    """Whether every user may read it."""
    resolved = path.resolve()
    return all(each.stat().st_mode & 0o005 == 0o005 for each in (resolved, *resolved.parents))


def _named() -> int:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    raise RuntimeError("there is no user that may run PostgreSQL")
