"""Elements of a page: elements whose text is escaped, tables, pictures, the style."""

import base64
import html
import io
import pathlib
import struct
import zlib
from collections.abc import Iterable, Sequence

import PIL.Image

from distilljax.types import InputError

MOST_BYTES = 500_000  # of a picture that is embedded as it is

MOST_PIXELS = 1800  # width of one that is not

MANY_COLUMNS = 8  # of a table; more are set smaller

PIXELS_SHOWN = 0.7  # CSS pixels for one of the picture, so that it is sharp


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Content = str | None | Iterable["Content"]


def el(tag: str, *content: Content, **attributes: object) -> Markup:
    """An element. Plain text is escaped, None is nothing, `class_` is `class`."""
    shown = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in ("img", "meta", "br", "line", "circle", "rect", "path"):
        return Markup(f"<{tag}{shown}>" if tag in VOID else f"<{tag}{shown}/>")
    return Markup(f"<{tag}{shown}>{join(content)}</{tag}>")


VOID = ("img", "meta", "br")


def join(content: Content) -> Markup:
    """Contents one after another, escaped where they are plain."""
    if content is None:
        return Markup("")
    if isinstance(content, Markup):
        return content
    if isinstance(content, str):
        return Markup(html.escape(content).replace(" %", "\u00a0%"))
    return Markup("".join(map(join, content)))


def data_table(
    head: Sequence[Content], rows: Iterable[Sequence[Content]], caption: str | None = None
) -> Markup:
    """A table that scrolls by itself where it is wide; the first column names rows."""
    table = el(
        "table",
        el("thead", el("tr", [el("th", cell, scope="col") for cell in head])),
        el(
            "tbody",
            [
                el(
                    "tr",
                    el("th", row[0], scope="row"),
                    [el("td", cell) for cell in row[1:]],
                )
                for row in rows
            ],
        ),
    )
    return el(
        "div",
        el("p", caption, class_="caption") if caption else None,
        el(
            "div",
            table,
            class_="scroll",
            tabindex="0",
            role="region",
            aria_label=caption or "table",
        ),
        class_="table wide" if len(head) > MANY_COLUMNS else "table",
    )


def beside(ours: Content, paper: str | None) -> Markup:
    """A number with the paper's below."""
    if paper is None:
        return join(ours)
    return join([ours, el("span", f"paper {paper}", class_="paper")])


def picture(path: pathlib.Path, alt: str, caption: Content) -> Markup:
    """A figure with the picture inside the page, made smaller if it is large.

    Raises:
      InputError: a file that is no picture.
    """
    raw = path.read_bytes()
    try:
        with PIL.Image.open(path) as opened:
            kind, (width, height) = f"image/{str(opened.format).lower()}", opened.size
            if len(raw) > MOST_BYTES:
                raw, width, height = _smaller(opened)
                kind = "image/webp"
            else:
                opened.verify()
    except (
        OSError,
        SyntaxError,
        ValueError,
        zlib.error,
        struct.error,
        PIL.Image.DecompressionBombError,
    ) as error:
        raise InputError(f"{path} is no picture ({error}); make it again") from None
    source = f"data:{kind};base64,{base64.b64encode(raw).decode('ascii')}"
    return el(
        "figure",
        el(
            "div",
            el(
                "img",
                src=source,
                alt=alt,
                width=round(PIXELS_SHOWN * width),
                height=round(PIXELS_SHOWN * height),
            ),
            class_="plate",
        ),
        el("figcaption", caption),
    )


def _smaller(image: PIL.Image.Image) -> tuple[bytes, int, int]:
    """As WebP, not wider than `MOST_PIXELS`; its size."""
    image = image.convert("RGB")
    if image.width > MOST_PIXELS:
        height = round(image.height * MOST_PIXELS / image.width)
        image = image.resize((MOST_PIXELS, height), PIL.Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=90, method=4)
    return stream.getvalue(), image.width, image.height


STYLE = """
:root {
  color-scheme: light dark;
  --paper: #faf9f6; --card: #ffffff; --sunk: #f3f1ec; --line: #e2ded5;
  --ink: #1f2933; --soft: #5b6672; --accent: #b03a0a; --tint: #b03a0a12;
  --yes: #15703a; --yes-bg: #e3f3e8; --no: #b42318; --no-bg: #fdeae7;
  --open: #8a5a00; --open-bg: #fdf1d3; --none: #5b6672; --none-bg: #eceae5;
  --theirs: #1d4ed8;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans",
    Arial, sans-serif;
  --serif: Charter, "Bitstream Charter", "Iowan Old Style", "Sitka Text", Cambria,
    "Liberation Serif", Georgia, serif;
  --mono: ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #13161b; --card: #1b2027; --sunk: #232932; --line: #323a45;
    --ink: #e7e6e2; --soft: #a3adb8; --accent: #ff9a66; --tint: #ff9a6614;
    --yes: #6fd695; --yes-bg: #173325; --no: #ff9d92; --no-bg: #3f1f1c;
    --open: #f1c765; --open-bg: #382d12; --none: #a3adb8; --none-bg: #2a313b;
    --theirs: #8ab4ff;
  }
}
*, *::before, *::after { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; scroll-padding-top: 4rem; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 1.0625rem/1.6 var(--serif); overflow-wrap: break-word;
}
a { color: var(--accent); text-decoration-thickness: 1px; text-underline-offset: .18em; }
a:focus-visible, summary:focus-visible, .scroll:focus-visible {
  outline: 2px solid var(--accent); outline-offset: 2px;
}
.skip { position: absolute; left: -99rem; }
.skip:focus { left: 1rem; top: 1rem; background: var(--card); padding: .5rem 1rem; }
h1, h2, h3 { font-family: var(--serif); line-height: 1.2; text-wrap: balance; }
h1 { font-size: clamp(2rem, 1.3rem + 3vw, 3.4rem); margin: .2rem 0 1rem;
  letter-spacing: -.015em; font-weight: 700; }
h2 { font-size: clamp(1.5rem, 1.2rem + 1.2vw, 2rem); margin: 0 0 .6rem;
  letter-spacing: -.01em; }
h3 { font-size: 1.1875rem; margin: 0; font-weight: 600; }
main section > h3 { margin: 2.2rem 0 .8rem; }
p { margin: 0 0 .8rem; }
.hero { max-width: 78rem; margin: 0 auto; padding: clamp(2rem, 5vw, 4.5rem) 1.25rem 1.5rem;
  }
.kicker { font: 600 .8125rem/1 var(--sans); letter-spacing: .09em;
  text-transform: uppercase;
  color: var(--accent); margin: 0; }
.lead { font-size: clamp(1.15rem, 1rem + .6vw, 1.4rem); line-height: 1.5; max-width: 50rem;
  color: var(--ink); margin-bottom: 1.6rem; }
.tally { list-style: none; display: grid; gap: .75rem; margin: 0 0 1.75rem; padding: 0;
  grid-template-columns: repeat(4, 1fr); font-family: var(--sans); }
.tally li { background: var(--card); border: 1px solid var(--line); border-radius: .75rem;
  padding: .9rem 1rem; border-top: 4px solid var(--mark);
  border-radius: .25rem .25rem .75rem .75rem; }
.tally li, .claim { --mark: var(--none); }
.tally .supported, .claim.supported { --mark: var(--yes); }
.tally .not-supported, .claim.not-supported { --mark: var(--no); }
.tally .undecided, .claim.undecided { --mark: var(--open); }
.count { display: block; font-size: 2.2rem; line-height: 1.1; font-weight: 700;
  font-variant-numeric: tabular-nums; margin-bottom: .35rem; }
.badge { display: inline-flex; align-items: center; gap: .35em; white-space: nowrap;
  border-radius: 99rem; padding: .28em .75em .28em .5em; background: var(--none-bg);
  color: var(--none); font: 600 .8125rem/1.2 var(--sans); }
span.badge.supported { background: var(--yes-bg); color: var(--yes); }
span.badge.not-supported { background: var(--no-bg); color: var(--no); }
span.badge.undecided { background: var(--open-bg); color: var(--open); }
.sign { display: inline-block; min-width: 1em; text-align: center; font-weight: 700; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr));
  gap: 1rem 2rem; margin: 0 0 1.5rem; font: .9375rem/1.45 var(--sans); }
dt { color: var(--soft); font-size: .8125rem; font-weight: 600; }
dd { margin: .1rem 0 0; }
.note { border-left: 4px solid var(--accent); background: var(--tint);
  padding: .9rem 1.1rem;
  border-radius: 0 .5rem .5rem 0; font: .9375rem/1.5 var(--sans); }
.note ul { margin: .35rem 0 0; padding-left: 1.2rem; }
.frame { max-width: 78rem; margin: 0 auto; padding: 0 1.25rem 3rem; }
nav { position: sticky; top: 0; z-index: 2; background: var(--paper); margin: 0 -1.25rem;
  border-bottom: 1px solid var(--line); overflow-x: auto; scrollbar-width: thin; }
nav ol { list-style: none; display: flex; gap: .25rem; margin: 0; padding: .5rem 1.25rem;
  font: .875rem/1.3 var(--sans); white-space: nowrap; }
nav a { display: block; padding: .4rem .7rem; border-radius: 99rem; text-decoration: none;
  color: var(--soft); }
nav a:hover { background: var(--sunk); color: var(--ink); }
main { min-width: 0; }
section { padding: 2.75rem 0 .5rem; }
section + section { border-top: 1px solid var(--line); margin-top: 2.25rem; }
.mark { display: block; font: 600 .8125rem/1.6 var(--sans); letter-spacing: .06em;
  color: var(--accent); }
.intro { max-width: 44rem; color: var(--soft); }
.sub, .paper, .scale { font-family: var(--sans); color: var(--soft); }
.sub, .paper { display: block; font-size: .8125rem; line-height: 1.4; font-weight: 400; }
.paper { color: var(--theirs); white-space: nowrap; }
.rule { font: .9063rem/1.5 var(--sans); color: var(--soft); max-width: 60rem;
  margin: .5rem 0 0; }
.rule strong { color: var(--ink); }
table { border-collapse: collapse; width: 100%; font: .9375rem/1.45 var(--sans);
  font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .6rem .75rem;
  border-bottom: 1px solid var(--line); font-weight: 400; }
thead th { font-weight: 600; font-size: .8125rem; color: var(--soft);
  vertical-align: bottom;
  border-bottom-color: var(--soft); }
tbody tr:last-child > * { border-bottom: 0; }
th strong { font-weight: 650; }
.table { background: var(--card); border: 1px solid var(--line); border-radius: .75rem;
  padding: 1rem .5rem .35rem; margin: 1.25rem 0; }
.scroll { overflow-x: auto; }
.caption { font: .875rem/1.5 var(--sans); color: var(--soft); padding: 0 .75rem;
  margin: 0 0 .5rem; }
.wide table { font-size: .875rem; }
.wide th, .wide td { padding-inline: .4rem; }
.wide .paper { font-size: .75rem; }
.scroll td, .scroll thead th:not(:first-child) { text-align: right; }
.scroll th[scope="row"] { min-width: 8.5rem; }
.overview { background: var(--card); border: 1px solid var(--line); border-radius: .75rem;
  border-collapse: separate; border-spacing: 0; overflow: hidden; }
.overview th[scope="row"] { width: auto; font: 1.0313rem/1.4 var(--serif); }
.overview th a { color: var(--ink); text-decoration-color: var(--line); }
.overview th a:hover { text-decoration-color: currentColor; }
.overview td:last-child { width: 20%; }
.ends { display: block; white-space: nowrap; }
.number strong { font-weight: 650; white-space: nowrap; }
.overview td.verdict { width: 9.4rem; }
.overview td:nth-child(3) { width: 27%; }
.overview .sub { margin-top: .1rem; }
.claim { background: var(--card); border: 1px solid var(--line); border-radius: .75rem;
  padding: 1.25rem 1.25rem 1rem; margin: 1.1rem 0; border-left: 5px solid var(--mark);
  border-radius: .25rem .75rem .75rem .25rem; }
.claim > header { display: flex; flex-direction: column; align-items: flex-start;
  gap: .5rem; }
.readings { margin-top: .9rem; }
.readings th[scope="row"] { width: 36%; padding-left: 0; }
.readings thead th:first-child { padding-left: 0; }
.readings td.plot { width: 15.5rem; padding: .3rem .25rem; }
.readings td { white-space: nowrap; }
.forest { display: block; width: 15rem; max-width: 100%; height: 1.9rem; overflow: visible;
  }
.forest .side { fill: var(--sunk); }
.forest .bound { stroke: var(--soft); stroke-dasharray: 3 2.5; }
.forest .interval, .forest .end { stroke: var(--none); stroke-width: 2; fill: none; }
.forest circle { fill: var(--none); }
.forest.supported .interval, .forest.supported .end { stroke: var(--yes); }
.forest.supported circle { fill: var(--yes); }
.forest.not-supported .interval, .forest.not-supported .end { stroke: var(--no); }
.forest.not-supported circle { fill: var(--no); }
.forest.undecided .interval, .forest.undecided .end { stroke: var(--open); }
.forest.undecided circle { fill: var(--open); }
.forest .theirs { fill: none; stroke: var(--theirs); stroke-width: 1.6; }
figure { margin: 1.25rem 0; }
.plate { background: #fff; border: 1px solid var(--line); border-radius: .75rem;
  padding: clamp(.5rem, 2vw, 1.1rem); }
.plate img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figcaption { font: .9063rem/1.5 var(--sans); color: var(--soft); padding: .5rem .1rem 0; }
figcaption strong { color: var(--ink); }
.gallery { display: grid; gap: 1.25rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); }
.gallery figure { margin: 0; }
.record { padding: 1.1rem 0; border-bottom: 1px solid var(--line); }
.record h3 { font: 600 1rem/1.4 var(--sans); text-transform: capitalize; }
.record p { margin: .15rem 0; }
code, pre { font-family: var(--mono); font-size: .8438rem; }
code { overflow-wrap: anywhere; }
pre { background: var(--sunk); border-radius: .5rem; padding: .75rem .9rem; margin: .6rem 0;
  white-space: pre-wrap; word-break: break-all; line-height: 1.5; }
summary { cursor: pointer; font: .875rem/1.4 var(--sans); color: var(--soft); }
.missing { font: .9375rem/1.6 var(--sans); padding-left: 1.2rem; }
.key { display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; font: .875rem/1.5 var(--sans);
  color: var(--soft); margin: 1rem 0 0; }
.key span { display: inline-flex; align-items: center; gap: .4rem; }
.key svg { width: 2.2rem; height: 1rem; }
footer { border-top: 1px solid var(--line); font: .9063rem/1.55 var(--sans);
  color: var(--soft); }
footer p { max-width: 78rem; margin: 0 auto; padding: 1.2rem 1.25rem 0; }
footer p:last-child { padding-bottom: 2.5rem; padding-top: .3rem; }
@media (min-width: 72rem) {
  .frame { display: grid; grid-template-columns: 10.5rem minmax(0, 1fr); gap: 3rem; }
  nav { align-self: start; top: 1.5rem; border: 0; margin: 3rem 0 0; background: none; }
  nav ol { flex-direction: column; padding: 0; gap: .1rem;
    border-left: 2px solid var(--line); }
  nav a { border-radius: 0 .4rem .4rem 0; padding: .35rem .9rem; white-space: normal; }
  html { scroll-padding-top: 1rem; }
}
@media screen and (max-width: 47rem) {
  body { font-size: 1rem; }
  .tally { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .tally li { padding: .7rem .65rem; }
  .overview, .readings { border: 0; background: none; }
  .overview thead, .readings thead { position: absolute; width: 1px; height: 1px;
    overflow: hidden; clip-path: inset(50%); }
  .overview, .overview tbody, .readings, .readings tbody { display: block; }
  .overview tr, .readings tr { display: grid; grid-template-columns: 1fr 1fr;
    gap: .5rem 1rem;
    padding: .9rem 0; border-bottom: 1px solid var(--line); }
  .overview tr { background: var(--card); border: 1px solid var(--line);
    border-radius: .75rem; padding: 1rem; margin-bottom: .75rem; }
  .readings tr:last-child { border-bottom: 0; padding-bottom: 0; }
  .overview th, .overview td, .readings th, .readings td { display: block; padding: 0;
    border: 0; width: auto !important; min-width: 0; white-space: normal; }
  .overview .verdict, .overview th[scope="row"], .readings th[scope="row"],
  .readings td.plot, .readings td.verdict { grid-column: 1 / -1; }
  .readings td.plot:empty { display: none; }
  .forest { width: 100%; }
  [data-label]::before { content: attr(data-label); display: block; font-size: .75rem;
    font-weight: 600; color: var(--soft); }
  .claim { padding: 1rem; }
  .table { margin-inline: -.25rem; }
}
@media print {
  :root {
    --paper: #fff; --card: #fff; --sunk: #f3f1ec; --line: #d5d0c5; --ink: #111;
    --soft: #4b5560; --accent: #8f2f08; --tint: #f7f1ec; --theirs: #1d4ed8;
    --yes: #15703a; --yes-bg: #e3f3e8; --no: #b42318; --no-bg: #fdeae7;
    --open: #8a5a00; --open-bg: #fdf1d3; --none: #5b6672; --none-bg: #eceae5;
  }
  html { font-size: 70%; }
  nav, .skip, details { display: none; }
  .frame { display: block; }
  .scroll { overflow: visible; }
  figure, .claim > header, .record, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
