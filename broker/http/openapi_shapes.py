"""What the shapes in the description are made of."""

from __future__ import annotations

from typing import Any, Final

Schema = dict[str, Any]


def ref(name: str) -> Schema:
    """A schema of the components."""
    return {"$ref": f"#/components/schemas/{name}"}


def error_response(about: str) -> Schema:
    """An answer that carries an error."""
    return {"description": about, "content": {"application/json": {"schema": ref("Error")}}}


def object_of(required: str, properties: Schema, *, more: bool = False, about: str = "") -> Schema:
    made: Schema = {"type": "object", "properties": properties, "required": required.split()}
    if not more:
        made["additionalProperties"] = False
    if about:
        made["description"] = about
    return made


def list_of(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def in_path(name: str, schema: Schema, about: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": schema, "description": about}


def in_header(name: str, about: str, schema: Schema) -> Schema:
    return {"name": name, "in": "header", "required": False, "schema": schema, "description": about}


TEXT: Final[Schema] = {"type": "string"}
FLAG: Final[Schema] = {"type": "boolean"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
TRUE: Final[Schema] = {"const": True}
BYTES: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": 10**15 - 1}
POSITION: Final[Schema] = {"type": "string", "pattern": r"^[0-9]{1,19}-[0-9a-z]{1,32}$"}
SINCE: Final[Schema] = {"type": "string", "pattern": r"^(first|now|(0|[1-9][0-9]{0,17})(-[0-9a-z]{1,32})?)$"}
ID: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": 512}
REV: Final[Schema] = {"type": "string", "pattern": r"^[1-9][0-9]{0,9}-[^\s,\"']{1,128}$"}
BARREL: Final[Schema] = {"type": "string", "pattern": r"^[a-z][a-z0-9_$()+/-]*$", "minLength": 1, "maxLength": 128}
