"""The site that `make docs` has built: complete, without other hosts, in a browser."""

import html
import inspect
import pathlib
import re
import shutil
import subprocess
import urllib.parse

import pytest

import skdeepfeat
from skdeepfeat import compression, plotting
from skdeepfeat import text as texts

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


@pytest.mark.parametrize("package", [skdeepfeat, compression, plotting, texts])
def test_reference_has_every_method(package, pages):
    """Methods that a class inherits within the package too."""
    missing = []
    for name in package.__all__:
        one = getattr(package, name)
        if not inspect.isclass(one):
            continue
        [path] = (SITE / "api").glob(f"*.{name}.html")
        for method, function in inspect.getmembers(one, inspect.isroutine):
            is_ours = (getattr(function, "__module__", "") or "").startswith("skdeep")
            if not method.startswith("_") and is_ours and inspect.getdoc(function):
                anchor = f'id="{path.stem}.{method}"'
                missing += [] if anchor in pages[path] else [f"{name}.{method}"]
    assert not missing


def test_reference_shows_sources_and_examples(pages):
    page = pages[SITE / "api" / "skdeepfeat.PretrainedFeatureExtractor.html"]
    assert "_modules/skdeepfeat/feature_extraction/_feature_extractor.html" in page
    assert "gallery/1_features/data_frame.html" in page


def test_examples_show_their_output_and_can_be_downloaded(pages):
    page = pages[SITE / "gallery" / "1_features" / "data_frame.html"]
    assert "with the photograph" in re.sub(r"<[^>]*>", "", page).split("__main__")[1]
    for ending in ("ipynb", "py"):
        [found] = re.findall(rf'href="([^"]*data_frame\.{ending})"', page)
        assert (SITE / "gallery" / "1_features" / found).resolve().exists()


def test_sitemap_has_every_page(pages):
    text = (SITE / "sitemap.xml").read_text(encoding="utf-8")
    listed = set(re.findall(r"/stable/(\S+)</loc>", text))
    named = {path.relative_to(SITE).as_posix() for path in pages}
    made = {name for name in named if name.startswith("_")}  # sources
    assert named - made - {"genindex.html", "py-modindex.html", "search.html"} == listed


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
