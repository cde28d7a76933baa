"""A bar chart as an SVG file, written by hand: a group of bars for each column, a bar for each system.

Each group has a scale of its own, for columns differ in their units. The values stand at the bars.
"""

from __future__ import annotations

from html import escape

from running import number

COLOURS = ("#4d4d4d", "#a6a6a6", "#0072b2", "#56b4e9", "#d55e00", "#e69f00", "#009e73", "#cc79a7")
GROUP_WIDTH, MARGIN, LINE, BAR, LONGEST = 400, 20, 20, 16, 300
GROUPS_A_ROW = LEGENDS_A_ROW = 2


def write(path, title, columns, systems):
    """``systems``: for each name its values, as many as there are columns; None has a dash and no bar."""
    legend_height = LINE * -(-len(systems) // LEGENDS_A_ROW)
    group_height = LINE * (len(systems) + 2)
    top = 2 * MARGIN + LINE + legend_height
    width = GROUPS_A_ROW * GROUP_WIDTH + 2 * MARGIN
    height = top + group_height * -(-len(columns) // GROUPS_A_ROW)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">',
        rectangle(0, 0, width, height, "#ffffff"),
        text(MARGIN, MARGIN + LINE / 2, title, bold=True),
        *legend(systems),
    ]
    for i, column in enumerate(columns):
        x = MARGIN + GROUP_WIDTH * (i % GROUPS_A_ROW)
        y = top + group_height * (i // GROUPS_A_ROW)
        parts += group(x, y, column, [values[i] for values in systems.values()])
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join([*parts, "</svg>\n"]))


def legend(names):
    for i, (name, colour) in enumerate(zip(names, COLOURS, strict=False)):
        x = MARGIN + GROUP_WIDTH * (i % LEGENDS_A_ROW)
        y = MARGIN + LINE * (1 + i // LEGENDS_A_ROW)
        yield rectangle(x, y, BAR, BAR, colour)
        yield text(x + BAR + 6, y + BAR - 3, name)


def group(x, y, column, values):
    yield text(x, y + BAR - 3, column, bold=True)
    most = max((value for value in values if value is not None), default=0) or 1
    for value, colour in zip(values, COLOURS, strict=False):
        y += LINE
        length = LONGEST * (value or 0) / most
        yield rectangle(x, y, length, BAR, colour)
        yield text(x + length + 6, y + BAR - 3, number(value))


def rectangle(x, y, width, height, colour):
    return f'<rect x="{x}" y="{y}" width="{width:.1f}" height="{height}" fill="{colour}"/>'


def text(x, y, words, *, bold=False):
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="#000000"{weight}>{escape(words)}</text>'
