"""The report and the pages in a real browser: chromium, headless, driven by Playwright."""

import contextlib
import functools
import http.server
import importlib.util
import pathlib
import shutil
import subprocess
import sys
import threading

import pytest

playwright = pytest.importorskip(
    "playwright.sync_api", reason="needs Playwright: pip install -e '.[browser]'"
)
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt install chromium"),
]

ROOT = pathlib.Path(__file__).parents[1]
REPORTS = sorted((ROOT / "experiments" / "results").glob("*/**/report.html"))
SIZES = (360, 1400)
# What sticks out at the right, and pictures without a text alternative.
OUTSIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
SILENT = "[...document.images].filter(i => !i.alt.trim()).map(i => i.src.slice(0, 80))"
UNDRAWN = "[...document.images].filter(i => !i.naturalWidth).map(i => i.src.slice(0, 80))"
BACKGROUND = """(() => {
  const of = e => getComputedStyle(e).backgroundColor;
  return [document.body, document.documentElement].map(of).find(c => !/, 0\\)$/.test(c));
})()"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@contextlib.contextmanager
def served(folder):
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("needs MkDocs: pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict"]
    config = ["--config-file", "distilljax/docs/mkdocs.yml"]
    subprocess.run([*command, *config, "--site-dir", folder], check=True, cwd=ROOT)
    return folder


def faults(browser, folder, pages):
    """What is wrong with pages, by page, scheme and width, and their backgrounds."""
    found, backgrounds = [], {}
    with served(folder) as address:
        for scheme in ("light", "dark"):
            page = browser.new_page(color_scheme=scheme)
            seen = []
            page.on("pageerror", lambda error, seen=seen: seen.append(f"script: {error}"))
            page.on(
                "response",
                lambda r, seen=seen: r.status < 400 or seen.append(f"absent: {r.url}"),
            )
            page.on(
                "request",
                lambda r, seen=seen: (
                    r.url.startswith((address, "data:", "blob:"))
                    or seen.append(f"from elsewhere: {r.url}")
                ),
            )
            for name in pages:
                for width in SIZES:
                    page.set_viewport_size({"width": width, "height": 900})
                    page.goto(f"{address}/{name}", wait_until="load")
                    if (outside := page.evaluate(OUTSIDE)) > 0:
                        seen.append(f"scrolls sideways by {outside} px")
                    seen += [f"no text: {x}" for x in page.evaluate(SILENT)]
                    seen += [f"not drawn: {x}" for x in page.evaluate(UNDRAWN)]
                    found += [f"{name} {scheme} {width}: {fault}" for fault in seen]
                    seen.clear()
                backgrounds[name, scheme] = page.evaluate(BACKGROUND)
            page.close()
    return found, backgrounds


def assert_whole(browser, folder, pages):
    found, backgrounds = faults(browser, folder, pages)
    assert not found
    for name in pages:
        assert backgrounds[name, "light"] != backgrounds[name, "dark"], name


def test_the_pages(browser, site):
    tutorials = sorted(site.glob("tutorials/*.html"))
    assert len(tutorials) == 6
    api = [f"api/distilljax{name}.html" for name in ("", ".core.outer", ".methods.bptt")]
    pages = ["index.html", *(f"tutorials/{p.name}" for p in tutorials), *api]
    assert_whole(browser, site, pages)


@pytest.mark.parametrize("report", REPORTS, ids=lambda p: p.parent.name)
def test_the_reports(browser, report):
    assert_whole(browser, report.parent, [report.name])


def test_a_faulty_page_is_noticed(browser, tmp_path):
    (tmp_path / "bad.html").write_text(
        "<img src='gone.png'><div style='width:2000px'>wide</div>"
        "<script src='https://example.org/x.js'></script><script>nothing()</script>"
    )
    found, backgrounds = faults(browser, tmp_path, ["bad.html"])
    text = "\n".join(found)
    for fault in ("script: ", "from elsewhere", "scrolls sideways", "no text"):
        assert fault in text
    assert backgrounds["bad.html", "light"] == backgrounds["bad.html", "dark"]
