"""The documentation builds strictly, has a page for every command, and loads nothing from other hosts."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ribcage import api, cli
from ribcage.runtime import flags

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parent.parent
LOADED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed)\b[^>]*?\bsrc=["']?(?:https?:)?//[^"'> ]+"""
    r"""|<link\b[^>]*?\bhref=["']?(?:https?:)?//[^"'> ]+"""
    r"""|url\(["']?(?:https?:)?//[^)]+|@import\b[^;]*//[^;]+"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built in a process of its own: MkDocs changes how the whole program logs."""
    pytest.importorskip("mkdocs")
    site = tmp_path_factory.mktemp("site 网站")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)]
    built = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return site


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    files = [file for kind in ("html", "css") for file in site.rglob(f"*.{kind}")]
    assert len(files) > 30
    found = {file.name: LOADED.findall(file.read_text(encoding="utf-8")) for file in files}
    assert not {name: hits for name, hits in found.items() if hits}


@pytest.mark.parametrize("name", cli.command_names())
def test_the_reference_has_every_command_with_every_option(site: Path, name: str) -> None:
    page = (site / "reference" / f"{name}.html").read_text(encoding="utf-8")
    known = flags.read_flags(cli.command(name), [])
    assert not [flag.option for flag in known if f"<code>{flag.option}</code>" not in page]


def test_the_reference_has_every_verb_and_the_types_that_go_between_them(site: Path) -> None:
    page = (site / "reference" / "python.html").read_text(encoding="utf-8")
    assert not [verb for verb in api.function_names() if f"ribcage.{verb}(…)" not in page]
    assert all(f"ribcage.{kind}" in page for kind in ("data.index.Index", "data.batch.Batch"))


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example/a.js">',
        "<link rel=stylesheet href=//fonts.example/a.css>",
        "@font-face{src:url(https://fonts.example/a.woff)}",
    ],
)
def test_what_is_loaded_from_elsewhere_is_seen(text: str) -> None:
    assert LOADED.search(text) and not LOADED.search('<a href="https://arxiv.org/abs/1711.05225">')
