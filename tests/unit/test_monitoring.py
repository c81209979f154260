"""Names of metrics by Prometheus' conventions, and dashboards that ask for what there is."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from folkmoot.node import metrics as of_node
from folkmoot.server.observation import metrics as of_server
from folkmoot.transport.metrics import Metric

DASHBOARDS = Path(__file__).parents[2] / "deploy/grafana"
HISTOGRAMS = {of_server.CALL_SECONDS, of_node.RUN_SECONDS, of_node.QUEUE_SECONDS}
DASHBOARD_OF = {"folkmoot.json": of_server.METRICS, "folkmoot-node.json": of_node.METRICS}
EVERY = (*of_server.METRICS, *of_node.METRICS)
BASE_UNITS = ("seconds", "bytes")
OTHER_UNITS = ("milliseconds", "minutes", "ms", "kib", "mib", "gib", "kb", "mb", "percent")


def expressions(node: Any) -> list[str]:
    """Return all that a dashboard asks Prometheus."""
    if isinstance(node, dict):
        own = [value for key, value in node.items() if key in ("expr", "query") and isinstance(value, str)]
        return own + [each for value in node.values() for each in expressions(value)]
    return [each for value in node for each in expressions(value)] if isinstance(node, list) else []


def asked(file: str) -> str:
    return "\n".join(expressions(json.loads((DASHBOARDS / file).read_text())))


def series(metric: Metric) -> str:
    return metric.name + "_bucket" if metric in HISTOGRAMS else metric.name


@pytest.mark.parametrize("file", DASHBOARD_OF)
def test_dashboard_shows_every_metric_and_no_other(file: str):
    shown = set(re.findall(r"\bfolkmoot_\w+", asked(file)))
    assert shown == {series(metric) for metric in DASHBOARD_OF[file]}


@pytest.mark.parametrize("file", DASHBOARD_OF)
def test_dashboard_asks_for_labels_that_there_are(file: str):
    labels = {series(metric): {*metric.labels, "job", "instance", "le"} for metric in DASHBOARD_OF[file]}
    for expression in asked(file).splitlines():
        of = {label for name in re.findall(r"\bfolkmoot_\w+", expression) for label in labels[name]}
        used = {
            label for by in re.findall(r"\bby \(([^)]*)\)", expression) for label in by.replace(" ", "").split(",")
        } | set(re.findall(r"[{,](\w+)=~?", expression))
        assert used <= of or "process_" in expression, expression


def test_no_panel_lies_on_another():
    for file in DASHBOARD_OF:
        places = [panel["gridPos"] for panel in json.loads((DASHBOARDS / file).read_text())["panels"]]
        cells = [
            (x, y)
            for place in places
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        ]
        assert len(cells) == len(set(cells))


@pytest.mark.parametrize("metric", EVERY, ids=lambda metric: metric.name)
def test_names_follow_the_conventions(metric: Metric):
    assert re.fullmatch(r"folkmoot(_[a-z]+)+", metric.name)
    words = metric.name.removesuffix("_total").split("_")
    assert not set(words) & set(OTHER_UNITS)
    assert not set(words[:-1]) & set(BASE_UNITS), "the unit stands at the end"
    assert not metric.name.endswith(("_count", "_sum", "_bucket", "_gauge", "_counter"))
    assert metric.help.endswith("."), "people read it"
    assert not {"le", "quantile", "job", "instance"} & set(metric.labels)


def test_no_two_metrics_have_one_name():
    assert len({metric.name for metric in EVERY}) == len(EVERY)
