"""The site as it is built: it fetches nothing from elsewhere, leads nowhere into nothing, and shows what it should."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

pytest.importorskip("mkdocs")
ROOT = Path(__file__).parent.parent
# What a browser fetches by itself when it shows a page.
FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src"}
LOADED_LINKS = {"stylesheet", "icon", "preload", "preconnect", "dns-prefetch", "modulepreload"}


class Page(HTMLParser):
    """What a page fetches, what it links to, and the places in it that can be linked to."""

    def __init__(self, path):
        super().__init__()
        self.path, self.fetched, self.links, self.ids = path, [], [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.ids.update(value for name, value in attrs if name in ("id", "name") and value)
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        elif tag == "link" and LOADED_LINKS & set((values.get("rel") or "").split()):
            self.fetched.append(values["href"])
        elif values.get(FETCHED.get(tag)):
            self.fetched.append(values[FETCHED[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", folder]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return {path.relative_to(folder).as_posix(): Page(path) for path in folder.rglob("*.html")}, folder


def is_elsewhere(address):
    return bool(re.match(r"(?:[a-z]+:)?//", address))


def test_no_page_fetches_anything_from_elsewhere(site):
    pages, folder = site
    assert {
        (name, address) for name, page in pages.items() for address in page.fetched if is_elsewhere(address)
    } == set()
    styles = [path.read_text(encoding="utf-8") for path in folder.rglob("*.css")]
    assert [
        address for text in styles for address in re.findall(r"url\(['\"]?([^)'\"]+)", text) if "//" in address
    ] == []


def test_no_link_leads_into_nothing(site):
    pages, folder = site
    dead = []
    for name, page in pages.items():
        for link in page.links:
            address, _, place = unquote(link).partition("#")
            if is_elsewhere(link) or link.startswith("mailto:") or name == "404.html":
                continue
            there = (page.path.parent / address).resolve() if address else page.path
            there = there / "index.html" if there.is_dir() else there
            found = pages.get(there.relative_to(folder).as_posix()) if there.is_relative_to(folder) else None
            if not there.exists() or (place and found and place not in found.ids):
                dead.append((name, link))
    assert dead == []


def test_reference_shows_examples_as_code_and_functions_in_the_place_of_their_modules(site):
    text = (site[1] / "reference.html").read_text(encoding="utf-8")
    assert "<blockquote>" not in text
    assert 'class="gp">&gt;&gt;&gt; ' in text
    assert "check_target" not in re.sub(r"<[^>]+>", "", text)
