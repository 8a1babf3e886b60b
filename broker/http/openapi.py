"""The description of the HTTP interface, made from the route table and what is said of each operation.

A route without a description, or an option without one, fails the tests; so the description is complete.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from broker.http.endpoint import Endpoint, Route
from broker.http.openapi_nested import OPTIONS as NESTED_OPTIONS
from broker.http.openapi_nested import SCHEMAS as NESTED_SCHEMAS
from broker.http.openapi_operations import OPERATIONS, Operation
from broker.http.openapi_parameters import CONDITIONS, OPTIONS, PARAMETERS
from broker.http.openapi_replications import SCHEMAS as REPLICATION_SCHEMAS
from broker.http.openapi_schemas import SCHEMAS
from broker.http.openapi_shapes import error_response, ref

_PARAM: Final = re.compile(r"\{(\w+)(?:\.\.\.)?\}")

_ABOUT: Final = (
    "Documents in, changes out. Ids and names in a path may be percent-encoded; an id may also stand plain, slashes "
    "included. An error is `{error, reason, hint}` with the status of its code."
)
_ANYWHERE: Final = (400, 401, 403, 503)


def describe(routes: Iterable[Route], version: str) -> dict[str, Any]:
    """OpenAPI 3.1 of these routes. WebSockets, which it has no words for, are told of in their GET."""
    paths: dict[str, dict[str, Any]] = {}
    for method, template, endpoint in routes:
        if method == "WEBSOCKET":
            continue
        operations = paths.setdefault(_PARAM.sub(r"{\1}", template), {})
        operations[method.lower()] = _operation(template, endpoint, OPERATIONS[endpoint.name])
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Spile",
            "version": version,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": {**SCHEMAS, **REPLICATION_SCHEMAS, **NESTED_SCHEMAS},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _operation(template: str, endpoint: Endpoint, said: Operation) -> dict[str, Any]:
    parameters = [PARAMETERS[name] for name in _PARAM.findall(template)]
    parameters += [_option(name, said.options_of) for name in sorted(endpoint.options)]
    parameters += [CONDITIONS[name] for name in said.headers]
    told: dict[str, Any] = {
        "operationId": endpoint.name,
        "summary": said.summary,
        "tags": [said.tag],
        "parameters": parameters,
        "responses": _responses(said),
    }
    if said.body is not None:
        content = {kind: {"schema": said.body} for kind in said.body_kinds}
        told["requestBody"] = {"required": said.body_required, "content": content}
    return told


def _option(name: str, of: str) -> dict[str, Any]:
    schema, about = OPTIONS.get(f"{of}.{name}") or OPTIONS.get(name) or NESTED_OPTIONS[name]
    shown: dict[str, Any] = {"name": name, "in": "query", "required": False, "schema": schema, "description": about}
    if schema.get("type") == "array":
        shown |= {"style": "form", "explode": True}
    return shown


def _responses(said: Operation) -> dict[str, Any]:
    responses: dict[str, Any] = {
        str(status): error_response(about)
        for status, about in (dict.fromkeys(_ANYWHERE, "Refused; see `error`.") | dict(said.errors)).items()
    }
    for status, (about, content) in said.answers.items():
        responses[str(status)] = _answer(about, content)
    return dict(sorted(responses.items()))


def _answer(about: str, content: Mapping[str, str | None]) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": about}
    if content:
        answer["content"] = {
            kind: {"schema": ref(schema) if schema is not None else {"type": "string"}}
            for kind, schema in content.items()
        }
    return answer
