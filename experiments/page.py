"""Reports as HTML: the page, its style, and the few pieces that it is made of."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from .figures import number

CSS = """
body { margin: 0 auto; max-width: 960px; padding: 24px 20px 64px; background: #fff; color: #222;
  font: 15px/1.5 system-ui, "Segoe UI", Helvetica, Arial, "DejaVu Sans", sans-serif; }
h1 { font-size: 26px; line-height: 1.25; margin: 12px 0 2px; font-weight: 650; }
h2 { font-size: 19px; margin: 44px 0 2px; padding-top: 14px; border-top: 1px solid #ddd; font-weight: 650; }
p { margin: 4px 0 12px; max-width: 76ch; } .lead { font-size: 17px; } .quiet { color: #555; }
svg, img { display: block; max-width: 100%; height: auto; margin: 6px 0; }
svg text { font-family: Helvetica, Arial, "Liberation Sans", "DejaVu Sans", sans-serif !important; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; margin: 10px 0; }
th, td { padding: 3px 0 3px 11px; text-align: right; white-space: nowrap; border-bottom: 1px solid #eee; }
th { font-weight: 600; color: #555; } th:first-child, td:first-child { text-align: left; padding-left: 0; }
tr.ours td { font-weight: 650; } tr.rule td { border-top: 1px solid #999; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 18px; margin: 14px 0; font-size: 14px; }
dt { color: #555; } dd { margin: 0; overflow-wrap: anywhere; }
code, pre { font: 13px/1.45 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
pre { background: #f6f6f6; padding: 10px 14px; overflow-x: auto; } summary { cursor: pointer; color: #555; }
.beside { display: flex; flex-wrap: wrap; gap: 8px 20px; align-items: flex-start; }
.beside > * { min-width: 0; overflow-x: auto; }
"""


def whole(title: str, parts: Iterable[str]) -> str:
    """A complete page that needs nothing from elsewhere."""
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"\n<title>{escape(title)}</title>\n<style>{CSS}</style>"
    body = "\n".join(parts)
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>{head}</head>\n<body>\n{body}\n</body>\n</html>\n'


def section(name: str, title: str, caption: str, *content: str) -> str:
    """A titled part of the page, its caption before its pictures."""
    return (
        f'<section id="{name}">\n<h2>{title}</h2>\n<p>{caption}</p>\n' + "\n".join(content) + "\n</section>"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]], marks: Mapping[int, str] | None = None) -> str:
    """An HTML table; marks are the classes of some rows."""
    lines = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"] if head else []
    for i, row in enumerate(rows):
        kind = f' class="{marks[i]}"' if marks and i in marks else ""
        lines.append(f"<tr{kind}>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>")
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def beside(*parts: str) -> str:
    """Parts side by side where the page is wide enough."""
    return '<div class="beside">' + "".join(f"<div>{part}</div>" for part in parts) + "</div>"


def plural(count: float, noun: str) -> str:
    """A count and its noun."""
    return f"{number(count, 0)} {noun}" + "s" * (count != 1)
