"""The site that `make docs` has built: complete, without other hosts, in a browser."""

import html
import pathlib
import re
import shutil
import subprocess
import urllib.parse

import pytest

SITE = pathlib.Path(__file__).parents[1] / "docs" / "_build" / "html"
BROWSERS = ["chromium", "chromium-browser", "google-chrome", "chrome"]

pytestmark = pytest.mark.skipif(
    not (SITE / "index.html").exists(), reason="the site is not built: make docs"
)


@pytest.fixture(scope="module")
def pages():
    """Return {path: text} of all pages."""
    return {path: path.read_text(encoding="utf-8") for path in SITE.rglob("*.html")}


def test_no_page_loads_anything_from_another_host(pages):
    loaded = re.compile(
        r"<(?:script|img|iframe|source|video)\b[^>]*?\bsrc=[\"']((?:https?:)?//[^\"']+)"
        r"|<link\b(?![^>]*rel=[\"']canonical)[^>]*?\bhref=[\"']((?:https?:)?//[^\"']+)"
    )
    found = {
        match[0]
        for text in pages.values()
        for match in loaded.finditer(re.sub(r"<!--.*?-->", "", text, flags=re.S))
    }
    for path in SITE.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        found |= set(
            re.findall(r"(?:url\(|@import )[\"']?(?:https?:)?//[^)\"']+", text)
        )
    assert not found


def test_no_internal_link_is_dead(pages):
    anchors = {
        path: set(re.findall(r"\b(?:id|name)=[\"']([^\"']+)", text))
        for path, text in pages.items()
    }
    dead = set()
    for path, text in pages.items():
        for link in set(re.findall(r"<a\b[^>]*?\bhref=[\"']([^\"']*)", text)):
            parts = urllib.parse.urlsplit(html.unescape(link))
            if parts.scheme or parts.netloc:
                continue
            file = urllib.parse.unquote(parts.path)
            target = (path.parent / file).resolve() if file else path
            fragment = urllib.parse.unquote(parts.fragment)
            if not target.exists():
                dead.add(f"{path.relative_to(SITE)}: {link}")
            elif fragment and target in anchors and fragment not in anchors[target]:
                dead.add(f"{path.relative_to(SITE)}: {link}")
    assert not dead, "\n".join(sorted(dead))


def browse(page, folder, *arguments):
    """Return what a browser without a network makes of a page, and its errors."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser among {', '.join(BROWSERS)}")
    done = subprocess.run(
        [
            browser,
            "--headless=new",
            "--no-sandbox",  # as root in a container
            "--disable-gpu",
            f"--user-data-dir={folder}",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--virtual-time-budget=10000",
            "--enable-logging=stderr",
            *arguments,
            f"{SITE.as_uri()}/{page}",
        ],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, re.findall(r"CONSOLE.*(?:ERR_|Uncaught|block).*", done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page, shown",
    [
        ("index.html", "Install"),
        ("gallery/1_features/own_network.html", "PretrainedFeatureExtractor"),
        ("api/skdeepfeat.FineTuneClassifier.html", "learning_rate"),
        ("search.html?q=decompression", "search-results"),
    ],
)
def test_pages_in_a_browser(page, shown, tmp_path):
    dom, errors = browse(page, tmp_path, "--dump-dom")
    assert shown in dom
    assert not errors
    if page.startswith("search"):
        results = dom[dom.index('id="search-results"') :]
        assert "guide.html" in results


@pytest.mark.slow
@pytest.mark.parametrize("width", [500, 1280])  # a phone, and a desk
def test_screenshot(width, tmp_path):
    image = tmp_path / "page.png"
    browse(
        "index.html", tmp_path, f"--window-size={width},900", f"--screenshot={image}"
    )
    assert image.stat().st_size > 20_000
