"""Reference: the OpenAPI text as a page to read, made without anything from the network."""

from collections.abc import Iterator
from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h2 { margin-top: 2.5rem; border-top: 1px solid #8886; padding-top: 1rem; font-size: 1.15rem }
h2, code, pre { font-family: ui-monospace, "DejaVu Sans Mono", monospace }
table { border-collapse: collapse; width: 100% }
td, th { text-align: left; vertical-align: top; padding: .25rem 1rem .25rem 0; border-bottom: 1px solid #8883 }
td:first-child { white-space: nowrap }
pre { overflow-x: auto; padding: .75rem 1rem; background: #8881 }
"""


def page(spec: dict[str, Any]) -> str:
    """The whole page."""
    told = [_operation(path, verb, one) for path, verbs in spec["paths"].items() for verb, one in verbs.items()]
    shapes = [_shape(name, one) for name, one in sorted(spec["components"]["schemas"].items())]
    info = spec["info"]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(info["title"])}</title><link rel="stylesheet" href="/docs/style.css">'
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>{_paragraphs(info['description'])}"
        '<p>The same for programs: <a href="/openapi.json">/openapi.json</a>.</p>'
        f"{''.join(told)}<h1>What is answered</h1>{''.join(shapes)}"
    )


def _operation(path: str, verb: str, one: dict[str, Any]) -> str:
    return (
        f"<h2>{verb.upper()} {escape(path)}</h2>{_paragraphs(one.get('description') or one.get('summary', ''))}"
        + _table("asked by", _asked(one))
        + _table("answered", _answered(one))
    )


def _asked(one: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for item in one.get("parameters", []):
        kind = item["schema"]
        default = f" (default {kind['default']})" if kind.get("default") not in (None, "") else ""
        yield f"?{item['name']}=", item.get("description", "") + default
    for kind, content in one.get("requestBody", {}).get("content", {}).items():
        for name, field in content["schema"]["properties"].items():
            yield f"{name} ({kind})", field.get("description", "")


def _answered(one: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for status, answer in sorted(one["responses"].items()):
        kinds = [content.get("schema", {}).get("$ref", kind) for kind, content in answer.get("content", {}).items()]
        named = ", ".join(kind.rpartition("/")[2] if kind.startswith("#") else kind for kind in kinds)
        yield status, " – ".join(filter(None, (answer["description"], named)))


def _shape(name: str, one: dict[str, Any]) -> str:
    fields = ((key, f"{_kind(field)}. {field.get('description', '')}") for key, field in one["properties"].items())
    return f"<h2>{escape(name)}</h2>{_paragraphs(one.get('description', ''))}{_table('', fields)}"


def _kind(field: dict[str, Any]) -> str:
    """A type in words."""
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2]
    if "anyOf" in field:
        return " or ".join(map(_kind, field["anyOf"]))
    if "enum" in field:
        return " or ".join(map(str, field["enum"]))
    if field.get("type") == "array":
        return f"list of {_kind(field['items'])}"
    if isinstance(field.get("additionalProperties"), dict):
        return f"names → {_kind(field['additionalProperties'])}"
    return str(field.get("type", "anything"))


def _table(head: str, rows: Any) -> str:
    body = "".join(f"<tr><td><code>{escape(one)}</code><td>{escape(two)}" for one, two in rows)
    top = f"<tr><th>{escape(head)}<th>" if head else ""
    return f"<table>{top}{body}</table>" if body else ""


def _paragraphs(text: str) -> str:
    """Lines that are indented stay as they are."""
    made = []
    for part in text.strip("\n").split("\n\n"):
        tag = "pre" if part.startswith("    ") else "p"
        made.append(f"<{tag}>{escape(part)}</{tag}>")
    return "".join(made)
