"""The house: feeds <- listeners <- broker, no network in feeds, and files of a size to be read."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ["feeds", "listeners", "broker"]
NETWORK = {
    "socket",
    "ssl",
    "asyncio",
    "selectors",
    "paho",
    "amqtt",
    "starlette",
    "uvicorn",
    "httpx",
    "websockets",
    "urllib3",
}
WEB = {"paho", "amqtt", "starlette", "uvicorn"}
LINES_MAX = 400


def modules(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, f"there is no package {package}"
    return found


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports anywhere, written out in full."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                here = path.relative_to(ROOT).parts[: -node.level]
                yield ".".join((*here, node.module or ""))
            else:
                yield node.module or ""


def importing(package: str, forbidden: set[str]) -> list[str]:
    """Each import of something forbidden, as `file: module`."""
    return [
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules(package)
        for name in imported(path)
        if name.partition(".")[0] in forbidden
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_stands_left_of_it(package: str) -> None:
    right = set(PACKAGES[PACKAGES.index(package) + 1 :])
    assert importing(package, right) == []


def test_documents_need_no_network() -> None:
    assert importing("feeds", NETWORK) == []


def test_listeners_know_no_server() -> None:
    assert importing("listeners", WEB - {"paho"}) == []


def test_the_imports_of_a_file_are_seen(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("import a.b\nfrom c.d import e\ndef f():\n    import g as h\n")
    assert sorted(imported(path)) == ["a.b", "c.d", "g"]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_is_named_like_one_of_the_standard_library(package: str) -> None:
    avoided = {*sys.stdlib_module_names, "utils", "helpers", "common"}
    assert [str(path.relative_to(ROOT)) for path in modules(package) if path.stem in avoided] == []


def test_files_are_of_a_size_to_be_read() -> None:
    lines = {path: len(path.read_text().splitlines()) for package in PACKAGES for path in modules(package)}
    long = {str(path.relative_to(ROOT)): count for path, count in lines.items() if count > LINES_MAX}
    assert long == {}
    assert median(count for path, count in lines.items() if path.name != "__init__.py") <= 150


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_says_what_it_holds(package: str) -> None:
    silent = []
    for path in modules(package):
        if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text())):
            silent.append(str(path.relative_to(ROOT)))
    assert silent == []


@pytest.mark.parametrize(
    "imports",
    [
        "from broker.cli import over_http",
        "from listeners import Listener, listen, listen_async",
        "from listeners.links import mqtt, websocket",
    ],
)
def test_who_only_speaks_to_a_service_does_not_wait_for_the_database(imports: str) -> None:
    program = f"import sys\n{imports}\nassert 'sqlalchemy' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_a_package_gives_every_name_that_it_promises() -> None:
    import feeds
    import listeners

    for package in (feeds, listeners):
        given = {name: getattr(package, name) for name in package.__all__}
        assert not [name for name, value in given.items() if inspect.ismodule(value)]
        assert not hasattr(package, "nothing_of_the_kind")
