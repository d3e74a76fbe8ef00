"""The site holds every page and every public name; what needs no mkdocs to be seen."""

import importlib
import inspect
import re

import documents
import pytest
import yaml

SITE = yaml.safe_load((documents.TOP / "mkdocs.yml").read_text())
DOCS = documents.TOP / "docs"
PACKAGES = [path.stem for path in sorted((DOCS / "api").glob("h*.md"))]


def leaves(nav):
    if isinstance(nav, str):
        return [nav]
    children = nav.values() if isinstance(nav, dict) else nav
    return [page for child in children for page in leaves(child)]


def named(page):
    """The names that an API page takes from docstrings."""
    return re.findall(r"^::: (\S+)$", (DOCS / "api" / f"{page}.md").read_text(), re.MULTILINE)


def test_every_page_is_in_the_navigation_once():
    pages = sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))
    assert sorted(leaves(SITE["nav"])) == pages


@pytest.mark.parametrize("page", PACKAGES)
def test_api_pages_name_what_there_is(page):
    for name in named(page):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            module, _, member = name.rpartition(".")
            assert hasattr(importlib.import_module(module), member), name


@pytest.mark.parametrize("page", PACKAGES)
def test_constants_which_have_no_docstring_are_named_one_by_one(page):
    module = importlib.import_module(page)
    public = {name: getattr(module, name) for name in getattr(module, "__all__", ())}
    values = [n for n, v in public.items() if not (inspect.isclass(v) or inspect.isfunction(inspect.unwrap(v)))]
    missing = [f"{page}.{name}" for name in values if f"{page}.{name}" not in named(page)]
    assert missing == []


def test_nothing_of_the_theme_is_fetched():
    assert SITE["theme"]["font"] is False
    assert not any(key in SITE for key in ("extra_javascript", "repo_url"))
    assert all("://" not in sheet for sheet in SITE["extra_css"])
