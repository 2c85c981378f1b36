"""The charts. Failures have their own colour and pattern; every chart has a text for screen readers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from core.model.verdict import VERDICT_STYLES
from core.records.metrics_queries import UsualTraffic
from core.records.outcomes import DayState
from ui.components.verdict import verdict_word
from ui.formats import day as day_text
from ui.formats import number
from ui.language import current, t

__all__ = ["calendar", "clicked", "histogram", "latency", "messages_per_day", "show", "throughput", "warm_up"]

# Plotly checks sys.modules for them, and fails while the thread of another session is importing them.
_LOADED_BEFORE_ANY_CHART = (np, pd)

FAILURE = "#c0392b"
BAND = "rgba(127, 140, 141, 0.22)"
REJECTED = "#e0a03e"
PALETTE = ("#1f7a8c", "#8d6b4b", "#6d597a", "#5c8d4e", "#4a6fa5", "#b56576", "#7f8c8d")
"""Neither red nor amber, which mean failed and rejected."""
DAY_COLOURS: dict[DayState, str] = {
    "complete": "#3a9d6e",
    "complete_with_rejects": REJECTED,
    "partial": REJECTED,
    "failed": FAILURE,
    "running": "#4a8fb5",
    "waiting": "#9db4c0",
    "missing": "rgba(192, 57, 43, 0.12)",
    "nothing_due": "rgba(127, 140, 141, 0.14)",
}
MISSING = {"shape": "/", "fgcolor": FAILURE, "size": 5, "solidity": 0.15}
_TICKS = [
    {"dtickrange": [None, 86_400_000], "value": "%H:%M\n%d/%m"},
    {"dtickrange": [86_400_000, None], "value": "%d/%m"},
]
"""Day and hour formats without month names, which plotly has in English only."""
LONGEST_LABEL = 36
MOST_MARKS = 200
"""Each marker is an SVG element of its own: a thousand take a second to draw."""
CONFIG = {"displayModeBar": False, "scrollZoom": False}


def warm_up() -> None:
    """Draws an empty chart, because plotly loads its parts with the first one."""
    go.Figure().add_bar(x=[0], y=[0]).add_scatter(x=[0], y=[0]).update_layout(title="").to_json()


def show(figure: go.Figure, key: str, alt: str, *, select: Sequence[str] = ()) -> Any:
    """Draws a chart; with `select` (`points`, `box`) it returns what the user clicked or marked."""
    if select:
        return st.plotly_chart(
            figure, key=key, alt=alt, config=CONFIG, on_select="rerun", selection_mode=tuple(select), width="stretch"
        )
    return st.plotly_chart(figure, key=key, alt=alt, config=CONFIG, width="stretch")


def clicked(event: Any) -> list[dict[str, Any]]:
    """The points of a selection."""
    selection = getattr(event, "selection", None) or {}
    return list(selection.get("points", []))


def messages_per_day(
    rows: Sequence[dict[str, Any]], rejected: dict[date, int], usual: dict[date, UsualTraffic], today: date, days: int
) -> go.Figure:
    """Bars by topic, failures in red and rejected rows in amber on top, the usual range behind them."""
    axis = [today - timedelta(days=back) for back in range(days - 1, -1, -1)]
    figure = _figure(280)
    known = [(day, usual[day].whole_day) for day in axis if day in usual and usual[day].whole_day]
    if known:
        for index, name in ((0, ""), (2, t("usual range"))):
            figure.add_scatter(
                x=[day for day, _ in known],
                y=[spread[index] for _, spread in known if spread],
                mode="lines",
                line={"width": 0, "shape": "hvh"},
                fill="tonexty" if index else None,
                fillcolor=BAND,
                name=name,
                showlegend=bool(name),
                hoverinfo="skip",
            )
    topics = sorted({row["topic"] for row in rows})
    for index, topic in enumerate(topics):
        counts = {row["day"]: row["messages"] for row in rows if row["topic"] == topic}
        figure.add_bar(
            x=axis,
            y=[counts.get(day, 0) for day in axis],
            name=_safe(topic),
            marker_color=PALETTE[index % len(PALETTE)],
            hovertemplate="%{y:,}<extra>%{fullData.name}</extra>",
        )
    failed: dict[date, int] = {}
    for row in rows:
        failed[row["day"]] = failed.get(row["day"], 0) + row["errors"]
    on_top = ((failed, t("not acknowledged"), FAILURE, "x"), (rejected, t("rejected rows"), REJECTED, "/"))
    for counts, name, colour, shape in on_top:
        if any(counts.values()):
            figure.add_bar(
                x=axis,
                y=[counts.get(day, 0) for day in axis],
                name=name,
                marker={"color": colour, "pattern": {"shape": shape}},
                hovertemplate="%{y:,}<extra>%{fullData.name}</extra>",
            )
    figure.update_layout(showlegend=True, barmode="stack", bargap=0.25, hovermode="x unified", clickmode="event+select")
    figure.update_xaxes(tickformat="%d/%m", hoverformat="%d/%m/%Y", range=_edges(axis))
    return figure


def latency(hours: Sequence[dict[str, Any]], threshold_ms: float | None, timezone: str) -> go.Figure:
    """Average, p90 and p99 per hour; the alert's threshold as a line."""
    figure = _figure(280)
    x = _local([row["hour"] for row in hours], timezone)
    mode = "lines+markers" if len(x) <= MOST_MARKS else "lines"
    for (name, words), colour, dash in zip(
        (("avg", t("average")), ("p90", "p90"), ("p99", "p99")),
        (PALETTE[0], PALETTE[1], PALETTE[2]),
        ("solid", "dash", "dot"),
        strict=True,
    ):
        figure.add_scatter(
            x=x,
            y=[row["latency_ms"][name] for row in hours],
            name=words,
            mode=mode,
            line={"color": colour, "dash": dash, "width": 2},
            marker={"size": 6},
            hovertemplate="%{y:,.1f} ms<extra>%{fullData.name}</extra>",
        )
    highest = max((row["latency_ms"]["p99"] or 0 for row in hours), default=0)
    if threshold_ms is not None and x and highest > threshold_ms / 20:
        figure.add_hline(
            y=threshold_ms,
            line={"color": FAILURE, "dash": "longdash", "width": 1.5},
            annotation_text=t("alert above {value} ms (p99)", value=number(threshold_ms)),
            annotation_position="top left",
        )
    figure.update_layout(hovermode="x unified")
    figure.update_xaxes(range=_at_least_a_day(x))
    figure.update_yaxes(title=t("ms"), rangemode="tozero")
    return figure


def throughput(hours: Sequence[dict[str, Any]], runs: Sequence[dict[str, Any]], timezone: str) -> go.Figure:
    """Messages of each hour as steps, rows a second as dots: of each run, or of the fastest run of each hour."""
    figure = _figure(280)
    x, y = _steps(hours, timezone)
    figure.add_scatter(
        x=x,
        y=y,
        mode="lines",
        line={"color": PALETTE[0], "width": 1, "shape": "hv"},
        fill="tozeroy",
        name=t("messages an hour"),
        hovertemplate="%{y:,}<extra>%{fullData.name}</extra>",
    )
    done = [run for run in runs if run["rows_per_s"]]
    words = t("rows a second, each run")
    if len(done) > MOST_MARKS:
        words = t("rows a second, the fastest run of each hour")
        done = _fastest_of_hours(done)
    figure.add_scatter(
        x=_local([run["started_at"] for run in done], timezone),
        y=[run["rows_per_s"] for run in done],
        name=words,
        mode="markers",
        yaxis="y2",
        marker={"color": PALETTE[1], "size": 8, "symbol": "diamond"},
        customdata=[_safe(run["job_name"]) for run in done],
        hovertemplate="%{y:,.0f}/s %{customdata}<extra></extra>",
    )
    figure.update_xaxes(range=_at_least_a_day(x))
    figure.update_layout(
        margin_r=48,
        yaxis2={"overlaying": "y", "side": "right", "rangemode": "tozero", "showgrid": False, "automargin": False},
    )
    figure.update_yaxes(rangemode="tozero")
    return figure


def histogram(buckets: Sequence[dict[str, Any]]) -> go.Figure:
    """How long the acknowledgements of one run took. The axis is logarithmic, as the buckets are."""
    figure = _figure(240)
    step = max(1, -(-len(buckets) // 40))
    groups = [buckets[start : start + step] for start in range(0, len(buckets), step)]
    figure.add_bar(
        x=[_between(group[0]["from_ms"], group[-1]["to_ms"]) for group in groups],
        y=[sum(bucket["messages"] for bucket in group) for group in groups],
        marker_color=PALETTE[0],
        hovertemplate="%{x}: %{y:,}<extra></extra>",
    )
    figure.update_layout(bargap=0.05, showlegend=False)
    figure.update_xaxes(title=t("acknowledged within, ms"), type="category", nticks=12, tickangle=0, automargin=True)
    return figure


def calendar(cells: dict[str, dict[date, tuple[DayState, str]]], axis: Sequence[date]) -> go.Figure:
    """Days across, jobs down: a coloured cell for each day, with a sign where it is not complete.

    Args:
        cells: Job's label → day → state and words for hovering.
        axis: The days.
    """
    labels = list(cells)
    figure = _figure(max(170, 110 + 38 * len(labels)))
    for state in DAY_COLOURS:
        points = [
            (day, row, words[1])
            for row, label in enumerate(labels)
            for day in axis
            if (words := cells[label][day])[0] == state
        ]
        pattern = {"pattern": MISSING} if state == "missing" else {}
        # A complete day has no sign: the browser measures each sign, which takes time.
        signs: dict[str, Any] = {}
        if state not in ("complete", "nothing_due"):
            signs = {
                "text": [VERDICT_STYLES[state].sign] * len(points),
                "textposition": "inside",
                "insidetextanchor": "middle",
                "textangle": 0,
                "textfont": {"size": 12, "color": FAILURE if state == "missing" else "#ffffff"},
                "constraintext": "none",
            }
        figure.add_bar(
            x=[day for day, _, _ in points],
            y=[0.84] * len(points),
            base=[row - 0.42 for _, row, _ in points],
            width=0.86 * 86_400_000,
            name=verdict_word(state),
            marker={"color": DAY_COLOURS[state], "line": {"width": 0}, **pattern},
            customdata=[[row, words] for _, row, words in points],
            hovertemplate="%{customdata[1]}<extra></extra>",
            showlegend=bool(points),
            **signs,
        )
    figure.update_layout(barmode="overlay", dragmode="select", selectdirection="any", clickmode="event+select")
    figure.update_yaxes(
        tickvals=list(range(len(labels))),
        ticktext=[
            _safe(label if len(label) <= LONGEST_LABEL else f"{label[: LONGEST_LABEL - 1]}…") for label in labels
        ],
        range=[len(labels) - 0.5, -0.5],
        showgrid=False,
        zeroline=False,
        fixedrange=True,
        automargin=True,
    )
    figure.update_xaxes(tickformat="%d/%m", range=_edges(axis), showgrid=False, fixedrange=True)
    return figure


def hover(job: str, day: date, state: DayState, counts: str) -> str:
    """The text shown when the pointer is on a cell."""
    return f"{_safe(job)}<br>{day_text(day)}: {verdict_word(state)}" + (f"<br>{counts}" if counts else "")


def _figure(height: int) -> go.Figure:
    figure = go.Figure()
    figure.update_layout(
        height=height,
        margin={"l": 60, "r": 8, "t": 28, "b": 40},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        separators=",." if current() == "it" else ".,",
        uirevision="keep",
        # automargin measures each label, which takes longer than drawing the chart.
        xaxis={"tickformatstops": _TICKS, "automargin": False},
        yaxis={"automargin": False},
    )
    return figure


def _steps(hours: Sequence[dict[str, Any]], timezone: str) -> tuple[list[Any], list[int]]:
    """The messages of each hour as steps, zero in hours without a row."""
    moments: list[Any] = []
    counts: list[int] = []
    for row in hours:
        if not moments or moments[-1] != row["hour"]:
            moments.append(row["hour"])
            counts.append(row["messages"])
        else:
            counts[-1] = row["messages"]
        moments.append(row["hour"] + timedelta(hours=1))
        counts.append(0)
    return _local(moments, timezone), counts


def _fastest_of_hours(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    fastest: dict[Any, dict[str, Any]] = {}
    for run in runs:
        hour = run["started_at"].replace(minute=0, second=0, microsecond=0)
        if hour not in fastest or run["rows_per_s"] > fastest[hour]["rows_per_s"]:
            fastest[hour] = run
    return list(fastest.values())


def _local(moments: Sequence[Any], timezone: str) -> list[Any]:
    """Wall-clock times of the zone, because plotly has no time zones."""
    zone = ZoneInfo(timezone)
    return [moment.astimezone(zone).replace(tzinfo=None) for moment in moments]


def _at_least_a_day(moments: Sequence[Any]) -> list[Any] | None:
    """The range of the axis, a day at least: plotly would draw a single point on an axis of milliseconds."""
    if not moments:
        return None
    last = max(moments) + timedelta(hours=1)
    return [min(min(moments) - timedelta(hours=1), last - timedelta(days=1)), last]


def _edges(axis: Sequence[date]) -> list[str]:
    return [f"{axis[0] - timedelta(days=1)}T12:00:00", f"{axis[-1]}T12:00:00"]


def _between(low: float, high: float) -> str:
    """The label of a bar. It is unique, because the axis merges bars of the same label."""
    digits = 2 if high < 10 else 1
    return f"{number(low, digits)}–{number(high, digits)}"


def _safe(text: str) -> str:
    """Escapes a text, because plotly interprets some HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
