"""`python -m bench`: measure the rows of `bench/rows`, or with --limits the raw limits alone, and print the table."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.context import Context
from bench.limits.registry import LIMITS, REFERENCES, speed_against_reference
from bench.report import Machine, Row, number, render_table, render_text, write_json
from bench.rows import discover


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 2 for a wrong command line, 1 when a row failed or, with --strict, is over its budget, else 0."""
    parser = _parser()
    options = parser.parse_args(arguments)
    modules = discover()
    names = list(LIMITS if options.limits else modules)
    if unknown := set(options.only) - set(names):
        parser.error(f"no such name: {', '.join(sorted(unknown))}; there are: {', '.join(names) or 'none'}")
    usual = names if options.limits else [name for name in names if not modules[name].only_when_asked]
    chosen = [name for name in names if name in (options.only or usual)]
    if options.list:
        print("\n".join(names))
        return 0
    machine = Machine.here()
    context = Context(options.image, options.payload_bytes, options.folder, options.nodes)
    if options.limits:
        print(_limits_table(chosen, context))
        print(f"\n{machine.text()}")
        return 0
    rows = _measure(chosen, context)
    print(f"{render_text(rows)}\n\n{machine.text()}")
    if options.json:
        write_json(options.json, machine, rows)
    verdicts = {row.verdict for row in rows}
    return int("failed" in verdicts or (options.strict and "over" in verdicts))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="measure this one; repeatable")
    parser.add_argument("--list", action="store_true", help="print the names and end")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as JSON too")
    parser.add_argument("--image", help="id of an image of bench/algorithms/least.py; without it the rows build one")
    parser.add_argument("--payload-bytes", type=int, default=100_000_000, help="size for the payload and trust rows")
    parser.add_argument("--nodes", type=int, default=1000, help="how many are in a crowd; 5000 take about six minutes")
    parser.add_argument("--folder", type=Path, help="where payloads are written (default: the temporary folder)")
    parser.add_argument("--limits", action="store_true", help="measure the limits alone, against their references")
    parser.add_argument("--strict", action="store_true", help="exit with status 1 when a row is over its budget")
    return parser


def _measure(names: Sequence[str], context: Context) -> list[Row]:
    rows: list[Row] = []
    modules = discover()
    for name in names:
        started = time.perf_counter()
        try:
            rows += modules[name].measure(context)
        except Exception as error:  # noqa: BLE001 - one broken row must not hide the others
            rows.append(Row.failed(name, error))
        print(f"{name}: {time.perf_counter() - started:.1f} s", file=sys.stderr, flush=True)
    return rows


def _limits_table(names: Sequence[str], context: Context) -> str:
    lines: list[tuple[str, ...]] = []
    for name in names:
        for figure in LIMITS[name](context):
            value, meaning = REFERENCES.get(figure.name, (None, ""))
            speed = speed_against_reference(figure)
            lines.append(
                (
                    figure.name,
                    number(figure.value),
                    figure.unit,
                    f"{number(min(figure.samples))} to {number(max(figure.samples))}",
                    number(value),
                    "-" if speed is None else f"{speed:.2f}",
                    meaning,
                )
            )
    header = ("limit", "median", "unit", "range", "reference", "as good as", "the reference is")
    return render_table(header, lines, right=frozenset({1, 4, 5}))


if __name__ == "__main__":
    sys.exit(main())
