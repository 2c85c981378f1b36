"""The charts. Failures have their own colour and pattern; every chart has a text for screen readers."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from core.records.metrics_queries import UsualTraffic
from ui.components.round_axis import round_steps
from ui.components.verdict import HEX_COLOURS
from ui.formats import milliseconds, number
from ui.language import current, t

__all__ = ["clicked", "histogram", "latency", "messages_per_day", "show", "throughput", "warm_up"]

# Plotly checks sys.modules for them, and fails while the thread of another session is importing them.
_LOADED_BEFORE_ANY_CHART = (np, pd)

FAILURE, REJECTED = HEX_COLOURS["red"], HEX_COLOURS["amber"]
BAND = "rgba(127, 140, 141, 0.22)"
PALETTE = ("#1f7a8c", "#8d6b4b", "#806a90", "#5c8d4e", "#4a6fa5", "#b56576", "#7f8c8d")
"""Neither red nor amber, which mean failed and rejected; each has a contrast of 3:1 to a white and to a dark page."""
_TICKS = [
    {"dtickrange": [None, 86_400_000], "value": "%H:%M\n%d/%m"},
    {"dtickrange": [86_400_000, None], "value": "%d/%m"},
]
"""Day and hour formats without month names, which plotly has in English only."""
COMPARED = "#7f8c8d"
NOTE = HEX_COLOURS["blue"]
FEW = 3
"""With so few points their values are written beside them."""
DAYS_WITH_DATES = 10
"""Of so few days each has its date."""
MARGIN_PX = 48
DIGIT_PX = 7
MOST_MARKS = 200
"""Each marker is an SVG element of its own: a thousand take a second to draw."""
BUCKET = 1.03
"""How much longer the longest latency of a bucket is than that of the one before."""
MOST_BARS = 40
AROUND, NARROWEST = 1.15, 4.0
"""Free room beside the bars, and the least that the axis spans, as factors."""
_ROUND_MS = [factor * 10.0**power for power in range(-2, 8) for factor in (1, 2, 5)]
MOST_TICKS = 12
LABEL_SHARE = 0.06
"""The part of the axis that a label needs."""
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
    rows: Sequence[dict[str, Any]],
    rejected: dict[date, int],
    usual: dict[date, UsualTraffic],
    axis: Sequence[date],
    before: Sequence[dict[str, Any]] = (),
    notes: Mapping[date, Sequence[str]] | None = None,
) -> go.Figure:
    """Bars by topic, failures in red and rejected rows in amber on top, the usual range behind them.

    Args:
        rows: `MetricsQueries.days`.
        rejected: Day → rows rejected.
        usual: Day → what is usual on it.
        axis: The days that are drawn.
        before: As `rows`, of the same days a week earlier, which are drawn as a line; empty: none.
        notes: Day → what users have written about it, which is marked at the foot of the day.
    """
    figure = _figure(280)
    highest = [_band(figure, axis, usual)]
    failed = _sums(rows, "errors")
    bars = [
        (_safe(topic), _sums([row for row in rows if row["topic"] == topic], "messages"), {"color": PALETTE[index % 7]})
        for index, topic in enumerate(sorted({row["topic"] for row in rows}))
    ]
    bars += [
        (name, counts, {"color": colour, "pattern": {"shape": shape}})
        for counts, name, colour, shape in (
            (failed, t("not acknowledged"), FAILURE, "x"),
            (rejected, t("rejected rows"), REJECTED, "/"),
        )
        if any(counts.values())
    ]
    for name, counts, marker in bars:
        figure.add_bar(
            x=list(axis),
            y=[counts.get(day, 0) for day in axis],
            name=name,
            marker=marker,
            hovertemplate="%{y:,}<extra>%{fullData.name}</extra>",
        )
    totals = [sum(counts.get(day, 0) for _, counts, _ in bars) for day in axis]
    highest += [*totals, _week_before(figure, axis, before)]
    few = [(day, total) for day, total in zip(axis, totals, strict=True) if total]
    if len(few) <= FEW:
        _write_values(figure, [day for day, _ in few], [total for _, total in few])
    _mark_notes(figure, [day for day in axis if day in (notes or {})], notes or {})
    figure.update_layout(showlegend=True, barmode="stack", bargap=0.25, hovermode="x unified", clickmode="event+select")
    # Without the formats of hours, which plotly prefers for a chart of few days.
    figure.update_xaxes(tickformat="%d/%m", tickformatstops=[], hoverformat="%d/%m/%Y", range=_edges(axis))
    if len(axis) <= DAYS_WITH_DATES:
        figure.update_xaxes(dtick=86_400_000, tick0=str(axis[0]))
    _round_axis(figure, max(highest), whole=True, above=1.12 if len(few) <= FEW else 1.02)
    return figure


def _mark_notes(figure: go.Figure, days: Sequence[date], notes: Mapping[date, Sequence[str]]) -> None:
    """Draws a sign at the foot of each day with notes; the label of the day has their texts."""
    if not days:
        return
    figure.add_scatter(
        x=list(days),
        y=[0] * len(days),
        mode="markers",
        marker={"symbol": "diamond", "size": 11, "color": NOTE, "line": {"width": 1.5, "color": "white"}},
        cliponaxis=False,
        name=t("note"),
        customdata=["<br>".join(_safe(textwrap.shorten(text, 90)) for text in notes[day]) for day in days],
        hovertemplate="%{customdata}<extra>%{fullData.name}</extra>",
    )


def _sums(rows: Sequence[dict[str, Any]], name: str) -> dict[date, int]:
    found: dict[date, int] = {}
    for row in rows:
        found[row["day"]] = found.get(row["day"], 0) + row[name]
    return found


def _band(figure: go.Figure, axis: Sequence[date], usual: dict[date, UsualTraffic]) -> int:
    """Draws the usual range. Returns its highest value."""
    known = [(day, spread) for day in axis if day in usual and (spread := usual[day].whole_day)]
    if not known:
        return 0
    for index, name in ((0, ""), (2, t("usual range"))):
        figure.add_scatter(
            x=[day for day, _ in known],
            y=[spread[index] for _, spread in known],
            mode="lines",
            line={"width": 0, "shape": "hvh"},
            fill="tonexty" if index else None,
            fillcolor=BAND,
            name=name,
            showlegend=bool(name),
            hoverinfo="skip",
        )
    return max(spread[2] for _, spread in known)


def _week_before(figure: go.Figure, axis: Sequence[date], before: Sequence[dict[str, Any]]) -> int:
    """Draws the line of the week before. Returns its highest value."""
    counts = {day + timedelta(days=7): count for day, count in _sums(before, "messages").items()}
    if not counts:
        return 0
    figure.add_scatter(
        x=list(axis),
        y=[counts.get(day, 0) for day in axis],
        mode="lines+markers" if len(axis) <= FEW else "lines",
        line={"color": COMPARED, "width": 2, "dash": "dot", "shape": "hvh"},
        marker={"size": 5, "symbol": "line-ew", "line": {"width": 2, "color": COMPARED}},
        name=t("the week before"),
        hovertemplate="%{y:,}<extra>%{fullData.name}</extra>",
    )
    return max(counts.get(day, 0) for day in axis)


def _write_values(figure: go.Figure, x: Sequence[Any], values: Sequence[int]) -> None:
    """Writes the numbers above the bars: with few there is room, and one bar alone has nothing to be compared with."""
    figure.add_scatter(
        x=list(x),
        y=list(values),
        mode="text",
        text=[number(value) for value in values],
        textposition="top center",
        cliponaxis=False,
        showlegend=False,
        hoverinfo="skip",
    )


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
        values = [row["latency_ms"][name] for row in hours]
        figure.add_scatter(
            x=x,
            y=values,
            name=f"{words} {milliseconds(values[0])}" if len(values) == 1 else words,
            mode=mode,
            line={"color": colour, "dash": dash, "width": 2},
            marker={"size": 11 if len(x) <= FEW else 6},
            hovertemplate="%{y:,.1f} ms<extra>%{fullData.name}</extra>",
        )
    highest = max((row["latency_ms"]["p99"] or 0 for row in hours), default=0)
    if threshold_ms is not None and x and highest > threshold_ms / 20:
        highest = max(highest, threshold_ms)
        figure.add_hline(
            y=threshold_ms,
            line={"color": FAILURE, "dash": "longdash", "width": 1.5},
            annotation_text=t("alert above {value} ms (p99)", value=number(threshold_ms)),
            annotation_position="top left",
        )
    figure.update_layout(hovermode="x unified")
    figure.update_xaxes(range=_at_least_a_day(x))
    _round_axis(figure, highest, unit=" ms", above=1.1)
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
    rates = [run["rows_per_s"] for run in done]
    figure.add_scatter(
        x=_local([run["started_at"] for run in done], timezone),
        y=rates,
        name=words,
        mode="markers+text" if len(done) <= FEW else "markers",
        text=[f"{number(rate)}/s" for rate in rates] if len(done) <= FEW else None,
        textposition="middle left",
        yaxis="y2",
        marker={"color": PALETTE[1], "size": 11 if len(done) <= FEW else 8, "symbol": "diamond"},
        customdata=[_safe(run["job_name"]) for run in done],
        hovertemplate="%{y:,.0f}/s %{customdata}<extra></extra>",
    )
    figure.update_xaxes(range=_at_least_a_day(x))
    figure.update_layout(yaxis2={"overlaying": "y", "side": "right", "showgrid": False, "automargin": False})
    _round_axis(figure, max(y, default=0), whole=True)
    _round_axis(figure, max(rates, default=0), whole=True, name="yaxis2", unit="/s")
    return figure


def histogram(buckets: Sequence[dict[str, Any]], percentiles: Mapping[str, float | None]) -> go.Figure:
    """How long the acknowledgements of one run took, on a logarithmic axis, with its percentiles as lines.

    A bar is as wide as its latencies, and a latency that no message had is a gap: the tail is as far away as it is.

    Args:
        buckets: `from_ms, to_ms, messages`, rising; each is 3 % wider than the one before.
        percentiles: Name → milliseconds.
    """
    figure = _figure(240)
    bars = _joined(buckets)
    figure.add_bar(
        x=[(low + high) / 2 for low, high, _ in bars],
        width=[high - low for low, high, _ in bars],
        y=[messages for _, _, messages in bars],
        marker={"color": PALETTE[0], "line": {"width": 0}},
        customdata=[_between(low, high) for low, high, _ in bars],
        hovertemplate="%{customdata} ms: %{y:,}<extra></extra>",
    )
    low, high = bars[0][0] / AROUND, bars[-1][1] * AROUND
    wider = max(1.0, math.sqrt(NARROWEST * low / high))
    ends = [low / wider, high * wider]
    ticks = [value for value in _ROUND_MS if ends[0] <= value <= ends[1]]
    if len(ticks) > MOST_TICKS:
        ticks = [value for value in ticks if math.log10(value).is_integer()]
    figure.update_layout(showlegend=False)
    figure.update_xaxes(
        title=t("acknowledged within, ms"),
        type="log",
        range=[math.log10(end) for end in ends],
        tickvals=ticks,
        ticktext=[number(value, 1 if value < 1 else 0) for value in ticks],
        automargin=True,
    )
    _round_axis(figure, max(messages for _, _, messages in bars), whole=True)
    _mark(figure, percentiles, math.log10(ends[1] / ends[0]))
    return figure


def _joined(buckets: Sequence[dict[str, Any]]) -> list[tuple[float, float, int]]:
    """Lowest and highest latency and messages of each bar; neighbours are joined where there would be too many bars."""
    edges = [(max(one["from_ms"], one["to_ms"] / BUCKET), one["to_ms"], one["messages"]) for one in buckets]
    first = edges[0][0]

    def place(of_ms: float) -> int:
        return round(math.log(of_ms / first, BUCKET))

    step = -(-place(edges[-1][1]) // MOST_BARS)
    counts: Counter[int] = Counter()
    for low, _, messages in edges:
        counts[place(low) // step] += messages
    return [
        (first * BUCKET ** (bar * step), first * BUCKET ** ((bar + 1) * step), messages)
        for bar, messages in sorted(counts.items())
    ]


def _mark(figure: go.Figure, percentiles: Mapping[str, float | None], decades: float) -> None:
    """Draws a line for each percentile; those side by side have one label."""
    labels: list[tuple[float, list[str]]] = []
    for name, value in percentiles.items():
        if not value:
            continue
        figure.add_vline(x=value, line={"color": PALETTE[1], "dash": "dot", "width": 1.5})
        at = math.log10(value)
        if labels and at - labels[-1][0] < decades * LABEL_SHARE:
            labels[-1][1].append(name)
        else:
            labels.append((at, [name]))
    for at, names in labels:  # an annotation is placed by the logarithm, a line by the value
        figure.add_annotation(
            x=at, y=1, yref="paper", yanchor="bottom", text=" · ".join(names), showarrow=False, xanchor="left"
        )


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


def _round_axis(
    figure: go.Figure, highest: float, *, whole: bool = False, unit: str = "", name: str = "yaxis", above: float = 1.02
) -> None:
    """Gives an axis from zero a few round numbers, in the language of the session, and the margin that they need.

    Args:
        figure: The chart.
        highest: Its largest value.
        whole: Whether it has counts.
        unit: Written behind each number.
        name: `yaxis`, or `yaxis2` at the right.
        above: How far the axis reaches beyond its last number.
    """
    steps = round_steps(highest, whole=whole)
    digits = max((len(f"{step:g}".partition(".")[2]) for step in steps if step < 1000), default=0)
    texts = [f"{number(step, digits)}{unit}" for step in steps]
    figure.update_layout(
        {name: {"tickvals": steps, "ticktext": texts, "range": [0, steps[-1] * above], "fixedrange": True}}
    )
    width = max(MARGIN_PX, 14 + round(DIGIT_PX * max(map(len, texts))))
    figure.update_layout({"margin_l" if name == "yaxis" else "margin_r": width})


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
