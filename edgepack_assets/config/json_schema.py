"""The JSON schema of edgepack.yaml, for editors: it completes keys and values, and marks what is not allowed.

It is draft 7, without references, because that is what yaml-language-server supports best. It says what can be said
of one value at a time; `edgepack config check` knows more.
"""

from __future__ import annotations

from typing import Any

from edgepack_assets.config.implementations import installed, keys_beside_settings, settings_class
from edgepack_assets.config.schema import Settings
from edgepack_assets.errors import PluginError

VARIABLE = {"type": "string", "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}", "title": "a variable, ${NAME}"}
"""Any value may come from the environment."""

_NOTES = ("title", "description", "default")
_LEFT_OUT = (*_NOTES, "format", "writeOnly", "discriminator")
_DRAFT_7 = {
    "ge": "minimum",
    "le": "maximum",
    "gt": "exclusiveMinimum",
}  # pydantic's words for a bound that it takes for no number's


def config_schema() -> dict[str, Any]:
    """The JSON schema of a whole edgepack.yaml."""
    schema = Settings.model_json_schema()
    definitions = schema.pop("$defs", {})
    del schema["properties"]["file"]
    schema["required"].remove("file")
    schema = _inlined(schema, definitions)
    _add_own_settings(schema["properties"]["model_types"]["additionalProperties"]["properties"])
    schema = _for_editors(schema, "edgepack.yaml")
    schema["description"] = "The configuration of edgepack-assets. Values may hold ${NAME} or ${NAME:-default}."
    return {"$schema": "http://json-schema.org/draft-07/schema#", **schema}


def _add_own_settings(entry: dict[str, Any]) -> None:
    """Add the installed model types' own settings to the keys of an entry: under `settings`, some also beside it."""
    own: dict[str, Any] = {}
    for name in installed():
        try:
            schema = settings_class(name).model_json_schema()
        except PluginError:
            continue  # an editor is no place to say so
        keys = _inlined(schema, schema.pop("$defs", {})).get("properties", {})
        for key, rules in keys.items():
            own[key] = {"anyOf": [own[key], rules], "description": rules.get("description")} if key in own else rules
        entry |= {key: rules for key, rules in keys.items() if key in keys_beside_settings(name)}
    entry["settings"] = {**entry["settings"], "type": "object", "properties": own, "additionalProperties": False}


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """The schema with a copy of each definition in place of the references to it: no section holds itself."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = dict(schema)
    if reference := schema.pop("$ref", None):
        # What stands beside the reference describes the key, which says more than the section's own words.
        schema = {**definitions[reference.rpartition("/")[2]], **schema}
    return {key: value if key in _NOTES else _inlined(value, definitions) for key, value in schema.items()}


def _for_editors(schema: dict[str, Any], title: str = "") -> dict[str, Any]:
    """The schema with a variable allowed in place of every single value, and without what an editor has no use for."""
    notes = {key: schema[key] for key in ("description", "default") if schema.get(key) is not None}
    if isinstance(notes.get("default"), dict):
        del notes["default"]  # a section's keys have their own defaults
    if title:
        notes["title"] = title
    choices = _choices(schema)
    if any("enum" in each or each.get("type") not in ("object", "array") for each in choices):
        choices = [*choices, VARIABLE]
    if {"type": "string"} in choices:  # any text, and so any variable
        choices = [each for each in choices if each.get("type") != "string"] + [{"type": "string"}]
    return {**notes, **choices[0]} if len(choices) == 1 else {**notes, "anyOf": choices}


def _choices(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The alternatives of a schema, without alternatives in them."""
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return [choice for each in schema[union] for choice in _choices(each)]
    rules = {_DRAFT_7.get(key, key): value for key, value in schema.items() if key not in _LEFT_OUT}
    if "properties" in rules:
        rules["properties"] = {key: _for_editors(value, key) for key, value in rules["properties"].items()}
    for key in ("additionalProperties", "items"):
        if isinstance(rules.get(key), dict):
            rules[key] = _for_editors(rules[key])
    return [rules]
