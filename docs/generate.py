"""Writes the reference pages that can be told by the code: run `.venv/bin/python docs/generate.py`.

`tests/unit/test_docs.py` fails while a page differs from what this would write.
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import itertools
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec
from typer.main import get_command

from broker.cli.exits import EXIT_CODES, EXIT_MEANINGS, REFUSED
from broker.cli.main import app
from broker.http.errors import STATUS
from broker.serve import serving
from broker.settings import describe_settings, load_settings
from feeds import barrels
from feeds.barrels import BarrelSettings
from feeds.errors import SpileError

sys.path.insert(0, str(Path(__file__).parent))
from metric_meanings import MEANINGS

HERE = Path(__file__).parent / "reference"
ERROR_MODULES = (
    *("feeds.errors", "listeners.errors", "listeners.replication.errors", "broker.http.errors"),
    "broker.requests.errors",
)
NOTE = "<!-- Written by docs/generate.py from the code. Change the code, and run it again. -->\n\n"
RECORD = Path(__file__).parent / "figures.jsonl"
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
KIB, MIB = 1024, 1024 * 1024


def pages() -> dict[Path, str]:
    """Every generated page and what should stand in it."""
    made = {
        "settings.md": settings(),
        "commands.md": commands(),
        "errors.md": errors(),
        "http.md": http(),
        "metrics.md": metrics(),
        "figures.md": figures(),
    }
    return {HERE / name: f"{NOTE}{text.rstrip()}\n" for name, text in made.items()}


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    for row in rows:
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) + " |")
    return "\n".join(lines) + "\n"


# -- settings


def settings() -> str:
    """The service's settings, and those of a barrel."""
    rows = []
    for each in describe_settings():
        rows.append((f"`{each.name}`", f"`{each.variable}`", _default(each.name, each.default), each.description))
    return f"""# Settings

## Of the service

A setting is given as a flag of `spile serve` (where it has one), as a variable in the environment, or in a TOML
file that `--config` names. The flag beats the variable, the variable beats the file, the file beats the default.
`spile settings` shows what holds now. A setting that is wrong or unknown is refused at the start, by name.

{table(("name", "variable", "default", "meaning"), rows)}
In a file they stand by their names:

```toml
data = "/var/lib/spile"
http = "127.0.0.1:8080"
mqtt_ws = "127.0.0.1:8083"
log_format = "json"
maintain_every = 30.0
```

The token is a secret, and so is what `peers` holds: give them as `SPILE_TOKEN` and `SPILE_PEERS` in the environment
or in a file that only the service can read. There are no flags for them, because the command line of a process can be
read by every user of the machine.

## Of a barrel

Set them with `spile create` or `spile configure`, or over HTTP with `POST /barrels/{{barrel}}` and
`PATCH /barrels/{{barrel}}`. Settings that are not named stay as they are.

{table(("name", "default", "meaning"), _barrel_settings())}"""


def _default(name: str, text: str) -> str:
    if not text:
        return ""
    if "bytes" in name and text.isdigit():
        size = int(text)
        unit, of = ("MiB", MIB) if size >= MIB else ("KiB", KIB)
        return f"{size / of:.4g} {unit} (`{text}`)"
    return f"`{text}`"


def _barrel_settings() -> Iterator[tuple[str, str, str]]:
    about = _field_texts(inspect.getsource(barrels), "BarrelSettings")
    for field in msgspec.structs.fields(BarrelSettings):
        yield f"`{field.name}`", f"`{msgspec.json.encode(field.default).decode()}`", about[field.name]


def _field_texts(source: str, of: str) -> dict[str, str]:
    """The texts that stand under the fields of a class."""
    (body,) = (node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == of)
    found = {}
    for field, text in itertools.pairwise(body):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(about))):
                found[name] = " ".join(about.split())
    return found


# -- commands


def commands() -> str:
    """The command line, from the very objects that parse it."""
    group: Any = get_command(app)
    parts = [
        "# Command line\n\n"
        "Commands speak to a running service: `--url`, else `SPILE_URL`, else `http://127.0.0.1:8000`. With "
        "`--database` they open a store themselves, which no service may hold meanwhile. Where the service wants a "
        "token, give it in `SPILE_TOKEN`.\n\n"
        "On a terminal the output is for people. In a pipe it is JSON, one object a line, so that "
        "`spile find geo region/Europe | jq .id` works. Messages about what went wrong go to standard error.\n\n"
        f"Exit codes: {EXIT_MEANINGS}.\n"
    ]
    panel = None
    for name, command in group.commands.items():
        if command.rich_help_panel != panel:
            panel = command.rich_help_panel
            parts.append(f"## {panel}\n")
        parts.append(_command(name, command))
    return "\n".join(parts)


def _command(name: str, command: Any) -> str:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and each.name != "help"]
    usage = " ".join(["spile", name, *(["[OPTIONS]"] if options else []), *(_usage(each) for each in arguments)])
    about = "\n\n".join(" ".join(part.split()) for part in command.help.split("\n\n"))
    text = f"### spile {name}\n\n```text\n{usage}\n```\n\n{about}\n"
    if arguments:
        text += "\n" + table(("argument", "meaning"), ((f"`{_shown(each)}`", each.help or "") for each in arguments))
    if options:
        text += "\n" + table(("option", "meaning"), (_option(each) for each in options))
    if command.epilog:
        lines = [line.strip().replace("\\[", "[") for line in command.epilog.splitlines()[1:]]
        text += "\n```bash\n" + "\n".join(lines) + "\n```\n"
    return text


def _shown(argument: Any) -> str:
    name = str(argument.metavar or argument.name.upper()).replace("[", "").replace("]", "")
    return name + "..." if argument.nargs == -1 and not name.endswith("...") else name


def _usage(argument: Any) -> str:
    return _shown(argument) if argument.required else f"[{_shown(argument)}]"


def _option(option: Any) -> tuple[str, str]:
    names = ", ".join(f"`{each}`" for each in (*option.opts, *option.secondary_opts))
    value = "" if option.is_flag else f" `{option.metavar or option.name.upper()}`"
    default = option.default
    about = option.help or ""
    if default not in (None, False, [], ()) and "efault" not in about:
        about += f" Default: `{default}`."
    if isinstance(option.show_default, str):
        about += f" Default: {option.show_default}."
    return names + value, about


# -- errors


def error_classes() -> list[type[SpileError]]:
    """Every error that has a code of its own, in the order of the table of statuses."""
    found: dict[str, type[SpileError]] = {}
    for name in ERROR_MODULES:
        for each in vars(importlib.import_module(name)).values():
            if isinstance(each, type) and issubclass(each, SpileError) and "code" in vars(each):
                found.setdefault(each.code, each)
    order = list(STATUS)
    return sorted(found.values(), key=lambda each: (order.index(each.code) if each.code in order else 99, each.code))


def errors() -> str:
    """The table over codes."""
    rows = []
    for each in error_classes():
        reason = (each.__doc__ or "").strip().splitlines()[0]
        status = STATUS.get(each.code, 500)
        again = "yes" if each.retryable else ""
        rows.append((f"`{each.code}`", status, EXIT_CODES.get(each.code, REFUSED), again, reason, each.hint))
    return f"""# Errors

Every refusal is `{{"error", "reason", "hint"}}`: a stable code, what was refused and why, and what to do about it.
Some carry more: `not_found` has `"missing": true` or `"deleted": true` where a document was asked for,
`epoch_changed` has the barrel's present `epoch`. Over HTTP the code decides the status, on the command line the
exit code; over MQTT the same object comes on `to/<client>/rejected/…`. In Python each code is a class of
`feeds.errors` or `listeners.errors`, all of them under `SpileError`. [What errors promise](../concepts/errors.md).

*again* says that the very same request may succeed later. `overloaded`, `rate_limited` and `unavailable` come with
`Retry-After`.

{table(("code", "status", "exit", "again", "meaning", "hint"), rows)}"""


# -- HTTP


def http() -> str:
    """The routes, from the service's own description."""
    told = asyncio.run(_described())
    by_tag: dict[str, list[str]] = {}
    for place, operations in told["paths"].items():
        for method, said in operations.items():
            by_tag.setdefault(said["tags"][0], []).append(_operation(place, method.upper(), said))
    text = """# HTTP

The service describes itself at `/openapi.json` (OpenAPI 3.1); this page is made from that.

- An id in a path may stand plain, slashes included, or percent-encoded: `/docs/fr/paris` and `/docs/fr%2Fparis` are
  the same document. A `/` in the name of a barrel is always written `%2F`; so it is in the id and in the name of an
  attachment.
- Where the service has a token, send `Authorization: Bearer <token>`. `/health` is open to everyone.
- An error is `{error, reason, hint}` with the status of its code: [Errors](errors.md).
- Every write of documents may carry an `Idempotency-Key`. Repeated with the same body within 24 hours it is
  answered as before, and not done again.
- 400, 401, 403 and 503 can come from everywhere and are not repeated below.
"""
    for tag in ("documents", "attachments", "changes", "barrels", "replication", "service"):
        text += f"\n## {tag.capitalize()}\n\n" + "\n".join(by_tag.pop(tag))
    assert not by_tag, f"tags without a place on the page: {sorted(by_tag)}"
    return text


async def _described() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        flags = {"data": Path(folder), "http": "127.0.0.1:0", "mqtt": "127.0.0.1:0", "log_level": "error"}
        async with serving(load_settings(flags)) as service, httpx.AsyncClient() as client:
            answer = await client.get(f"http://127.0.0.1:{service.http.port}/openapi.json")
            told: dict[str, Any] = answer.json()
            return told


def _operation(place: str, method: str, said: dict[str, Any]) -> str:
    text = f"### {method} {place}\n\n{said['summary']}.\n\n"
    if "requestBody" in said:
        kinds = said["requestBody"]["content"]
        needed = "" if said["requestBody"]["required"] else ", may be left out"
        names = " or ".join(f"`{kind}`" for kind in kinds)
        text += f"Body ({names}{needed}): {_schema(next(iter(kinds.values())))}.\n\n"
    options = [each for each in said["parameters"] if each["in"] != "path"]
    if options:
        rows = ((f"`{each['name']}`", each["in"], _schema(each), each.get("description", "")) for each in options)
        text += table(("option", "in", "value", "meaning"), rows) + "\n"
    rows_of_answers = []
    for status, answer in said["responses"].items():
        if status in ("400", "401", "403", "503") and "Refused; see" in answer["description"]:
            continue
        kinds = answer.get("content", {})
        what = (_schema(held) if kind == "application/json" else f"`{kind}`" for kind, held in kinds.items())
        rows_of_answers.append((status, answer["description"], ", ".join(what)))
    return text + table(("status", "when", "answer"), rows_of_answers)


def _schema(held: dict[str, Any]) -> str:
    """A few words for a schema: enough to know what to send, the whole of it stands in the description."""
    schema = held.get("schema", {})
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "anyOf" in schema:
        return " or ".join(_schema({"schema": each}) for each in schema["anyOf"])
    if schema.get("type") == "object":
        rare = re.compile("_(conflicts|history|branches)$")
        names = [name for name in schema.get("properties", {}) if not rare.match(name)]
        return f"object with {', '.join(f'`{name}`' for name in names)}" if names else "object"
    if schema.get("type") == "array":
        return f"list of {_schema({'schema': schema['items']})}"
    if schema.get("format") == "binary":
        return "bytes"
    return str(schema.get("type", "any"))


# -- metrics


def metrics() -> str:
    """What stands at `/metrics`."""
    rows = ((f"`{name}`", about) for name, about in MEANINGS.items())
    return f"""# Metrics

`GET /metrics` gives figures in the text format of Prometheus: those below, and the usual ones of a process
(`process_resident_memory_bytes`, `process_cpu_seconds_total`, `process_open_fds`, …). Queues show their depth, and
limits stand beside them. [How to monitor](../how-to/monitor.md) says which of them to watch.

{table(("name", "meaning"), rows)}"""


# -- figures


def figures() -> str:
    """What the benchmarks found, as `python -m benchmarks --record docs/figures.jsonl` keeps it."""
    found = [msgspec.json.decode(line) for line in RECORD.read_bytes().splitlines()]
    machines = sorted({_machine(each["machine"]) for each in found})
    parts = []
    for each in sorted(found, key=lambda each: str(each["benchmark"])):
        module = (BENCHMARKS / f"{each['module']}.py").read_text()
        about = " ".join((ast.get_docstring(ast.parse(module)) or "").split())
        asked = dict(_flat(each["asked"]))
        rows = [
            (f"`{name}`", _figure(value), _figure(asked.get(name, asked.get(name.removesuffix(".per_s")))))
            for name, value in _flat(each["figures"])
        ]
        heading = f"## {each['benchmark']}\n\n{about}\n\nMeasured on {each['at']} by "
        parts.append(f"{heading}`python -m benchmarks {each['module']}`.\n\n{table(('', 'found', 'goal'), rows)}")
    return f"""# Figures

What the benchmarks found, medians of several runs each, on a virtual machine: {"; ".join(machines)}.
Its speed changes by a factor of two with what others do on it: shares and ratios were taken within one run, and hold;
absolute figures are of that hour. What bounds them is told in [what it costs](../concepts/performance.md). A goal is
the least that a rate should be, and the most that a time, a ratio of costs or memory should be.

To measure on your machine: `make bench`, or one by its name.

{chr(10).join(parts)}"""


def _machine(told: dict[str, Any]) -> str:
    parts = (f"{told['cores']} cores of {told['cpu'] or 'an unnamed kind'}", f"Python {told['python']}")
    return ", ".join((*parts, f"SQLite {told['sqlite']}"))


def _flat(values: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield before + name, value


def _figure(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def main() -> None:
    """Write every page that is not as it should be, and name it."""
    for path, text in pages().items():
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(f"written: {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


if __name__ == "__main__":
    main()
