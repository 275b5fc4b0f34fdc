#!/usr/bin/env python3
"""Draws docs/figures/h100-streams.csv, the figures of `vidette bench` for many streams, as an SVG:

    python3 scripts/gpu/plot.py docs/figures/h100-streams.csv >docs/figures/h100-streams.svg

Needs nothing but Python. Not here: measuring (`bench.sh`)."""

import csv
import sys

W, H, LEFT, TOP, WIDE, HIGH = 760, 300, 56, 40, 280, 200
INK, MUTED, FIRST, SECOND = "#333", "#999", "#0b6e99", "#c0561b"


def axes(x0, title, x_max, x_step, y_max, y_step, y_unit):
    out = [f'<text x="{x0}" y="{TOP - 16}" font-weight="bold" fill="{INK}">{title}</text>']
    for i in range(int(x_max / x_step) + 1):
        x = x0 + WIDE * i * x_step / x_max
        out.append(f'<text x="{x:.0f}" y="{TOP + HIGH + 18}" text-anchor="middle" fill="{INK}">{i * x_step:g}</text>')
    for i in range(int(y_max / y_step) + 1):
        y = TOP + HIGH * (1 - i * y_step / y_max)
        out.append(f'<line x1="{x0}" x2="{x0 + WIDE}" y1="{y:.0f}" y2="{y:.0f}" stroke="#ddd"/>')
        out.append(f'<text x="{x0 - 6}" y="{y + 4:.0f}" text-anchor="end" fill="{INK}">{i * y_step:g}</text>')
    out.append(f'<text x="{x0 + WIDE / 2}" y="{TOP + HIGH + 36}" text-anchor="middle" fill="{INK}">streams</text>')
    out.append(f'<text x="{x0 + WIDE}" y="{TOP - 16}" text-anchor="end" fill="{MUTED}">{y_unit}</text>')
    return out


def line(x0, points, x_max, y_max, colour, name):
    at = [(x0 + WIDE * x / x_max, TOP + HIGH * (1 - y / y_max)) for x, y in sorted(points)]
    out = [f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in at)}" fill="none" stroke="{colour}" stroke-width="2"/>']
    out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in at]
    out.append(f'<text x="{at[-1][0] + 8:.0f}" y="{at[-1][1] + 4:.0f}" fill="{colour}">{name}</text>')
    return out


def main():
    with open(sys.argv[1], newline="") as file:
        rows = list(csv.DictReader(file))
    of = lambda run, column: [(int(r["streams"]), float(r[column])) for r in rows if r["run"] == run]  # noqa: E731
    busy = of("back to back", "looks_per_s")
    p50 = [(n, ms / 1e3) for n, ms in of("every 10 s", "end_p50_ms")]
    p95 = [(n, ms / 1e3) for n, ms in of("every 10 s", "end_p95_ms")]
    second = LEFT + WIDE + 90
    out = axes(LEFT, "Looks a second, one after the other", 16, 4, 10, 2, "looks/s")
    out += line(LEFT, busy, 16, 10, FIRST, "")
    out += axes(second, "A look every 10 s: newest frame to end of text", 80, 16, 2.5, 0.5, "s")
    wanted = TOP + HIGH * (1 - 2 / 2.5)
    out.append(f'<line x1="{second}" x2="{second + WIDE}" y1="{wanted:.0f}" y2="{wanted:.0f}" stroke="{MUTED}" stroke-dasharray="5 4"/>')
    out += line(second, p50, 80, 2.5, FIRST, "p50") + line(second, p95, 80, 2.5, SECOND, "p95")
    body = "\n".join(out)
    print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {W} {H}" font-family="sans-serif" font-size="12">'
          f'\n<rect width="{W}" height="{H}" fill="white"/>\n{body}\n</svg>')  # fmt: skip


if __name__ == "__main__":
    main()
