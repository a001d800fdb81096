"""Reference page: the OpenAPI description as an HTML page that loads nothing from other sites."""

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from ribcage.runtime import templates

if TYPE_CHECKING:
    from jinja2 import Environment


def render_reference(spec: dict[str, Any], about: str) -> str:
    """The page; `about` is the introduction."""
    operations = [
        {
            "route": f"{verb.upper()} {path}",
            "text": paragraphs(one.get("description") or one.get("summary", "")),
            "parameters": list(_parameters(one)),
            "responses": list(_responses(one)),
        }
        for path, verbs in spec["paths"].items()
        for verb, one in verbs.items()
    ]
    schemas = [
        {"name": name, "text": paragraphs(one.get("description", "")), "fields": list(_fields(one))}
        for name, one in sorted(spec["components"]["schemas"].items())
    ]
    page = _environment().get_template("reference.html.jinja")
    return page.render(info=spec["info"], about=paragraphs(about), operations=operations, schemas=schemas)


def render_style() -> str:
    """The style sheet, which is a separate file because the content security policy forbids inline styles."""
    return _environment().get_template("reference.css.jinja").render()


@cache
def _environment() -> "Environment":
    return templates.environment("ribcage.server")


def paragraphs(text: str) -> list[tuple[str, bool]]:
    """(paragraph, whether it is code): code is indented."""
    return [(part, part.startswith("    ")) for part in text.strip("\n").split("\n\n")]


def _parameters(one: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for item in one.get("parameters", []):
        schema = item["schema"]
        default = f" (default {schema['default']})" if schema.get("default") not in (None, "") else ""
        yield f"?{item['name']}=", item.get("description", "") + default
    for kind, content in one.get("requestBody", {}).get("content", {}).items():
        for name, field in content["schema"]["properties"].items():
            yield f"{name} ({kind})", field.get("description", "")


def _responses(one: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for status, response in sorted(one["responses"].items()):
        kinds = [content.get("schema", {}).get("$ref", kind) for kind, content in response.get("content", {}).items()]
        named = ", ".join(kind.rpartition("/")[2] if kind.startswith("#") else kind for kind in kinds)
        yield status, " – ".join(filter(None, (response["description"], named)))


def _fields(one: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key, field in one["properties"].items():
        yield key, f"{_kind(field)}. {field.get('description', '')}".strip()


def _kind(field: dict[str, Any]) -> str:
    """The description of a type."""
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2]
    if "anyOf" in field:
        return " or ".join(map(_kind, field["anyOf"]))
    if "enum" in field:
        return " or ".join(map(str, field["enum"]))
    if field.get("type") == "array":
        return f"list of {_kind(field['items'])}"
    if isinstance(field.get("additionalProperties"), dict):
        return f"object, name → {_kind(field['additionalProperties'])}"
    return str(field.get("type", "any"))
