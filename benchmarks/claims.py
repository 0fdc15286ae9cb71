"""From stored lines to claims: a short page each, and ``RESULTS.md`` as their index.

    python benchmarks/claims.py     # write every page and the index

A benchmark that has something to say holds a ``CLAIM`` (or ``CLAIMS``): its method, its planned
cells, one sentence with the figure and its interval, and tables. Everything on a page comes from
``results/*.jsonl``, machine and dates too, so that the same lines give the same page anywhere. A
cell without a line is in no table; the page says how many of the planned cells were run.
"""

from __future__ import annotations

import datetime
import importlib
import json
import math
import re
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cells import HERE, RESULTS, Cell, key
from peers.tables import markdown, matched
from scipy import stats

from holdfast.report.charts.svg import AxisScale, element, tick_labels, ticks
from holdfast.stats.intervals import wilson

Line = Mapping[str, Any]
Lines = Sequence[Line]
Column = Callable[[Lines], str]
Section = Callable[[Lines], str]
# The question, the figure, and what follows from it.
ReadmeRow = tuple[str, str, str]

BOOK, README = HERE / "RESULTS.md", HERE.parent / "README.md"
README_TABLE = re.compile(r"(?<=<!-- results -->\n).*?(?=<!-- /results -->)", re.DOTALL)
# Below this share of its cells, and without an interval, a benchmark says nothing yet.
LEAST_SHARE = 0.2
# Where so many sets were measured they are the units of an interval: the next set is another one.
# With fewer, which say nothing of another set, runs are, and the conclusion is one on these sets.
LEAST_SETS = 5
# Fewer runs than this have no interval: with two, a t interval is twelve times their spread.
LEAST_RUNS = 3
# Times of the same machine are compared within so many hours: other work on it comes and goes.
SAME_HOURS = 3
INTERVAL = "95 % CI"
INTRODUCTION = """\
# Results

Each line is one claim: the finding with its 95 % confidence interval (CI), and how many of the
planned cells were run. A cell is one system on one data set, size and seed; in a simulation it is
one setting. The linked page has the method, the tables, the limits, the command and the machine.

- **Points** are percentage points. A **pair** is two runs on the same rows with the same seed.
- **MiniLM** is the small sentence encoder in the package, **mpnet** is all-mpnet-base-v2.
  **Holdfast (auto)** chooses between the two. **Trainer** is the Hugging Face Trainer; where it is
  compared with "Holdfast (MiniLM)" or "Holdfast (auto)", it stops early.
- **Cross-fitting**: validation rows are training rows too, and out-of-fold predictions replace
  those on validation rows. A **static** model is a table of token vectors.
- **The default** is Holdfast's default on the dates at the end of a page. Before 2026-11-24 the
  default did not use cross-fitting, which it now does for few labelled rows (`train.folds`).
- **CR** and **MR** are opinions on products and films, **TREC** is types of question, **BANKING77**
  is customers' intents. [Accuracy on ten sets](results/quality.md) describes the other sets.

`python benchmarks/claims.py` writes this index and the pages from the lines in `results/`; a test
checks that they match.
"""
UNMEASURED = """\
## Planned, with too few measurements for a result

Fewer than a fifth of the planned cells were run and there is no interval, or no result was stored.
"""


@dataclass(frozen=True, slots=True)
class Claim:
    """A question and how its page is made. ``finding`` and each of ``sections`` get the lines of
    the planned cells that were run; ``planned`` gives all of them. ``files`` are the stored lines
    (by default those of ``name``). ``limits`` says what failed or what the figures cannot show.
    ``picture`` gives an SVG, ``readme`` rows of the README's table of results."""

    name: str
    theme: str
    title: str
    method: str
    planned: Callable[[], Sequence[Cell]]
    finding: Section
    sections: Sequence[Section] = ()
    limits: Section | str = ""
    files: tuple[str, ...] = ()
    command: str = ""
    picture: Section | None = None
    readme: Callable[[Lines], Sequence[ReadmeRow]] = lambda _: ()

    def run(self) -> str:
        return self.command or f"python benchmarks/{self.name}.py"


def described(about: str | None) -> str:
    """What a benchmark says of its method: its docstring without the title and the commands."""
    return (about or "").partition("\n\n")[2].partition("\n\n")[2]


def stored_lines(claim: Claim) -> tuple[list[dict[str, Any]], int]:
    """The lines of the claim's planned cells, cell and result in one, in the order planned; and
    the number of planned cells. Of one cell the last line counts."""
    found: dict[str, dict[str, Any]] = {}
    for name in claim.files or (claim.name,):
        path = RESULTS / f"{name}.jsonl"
        for text in path.read_text("utf-8").splitlines() if path.exists() else ():
            try:
                one = json.loads(text)
            except json.JSONDecodeError:
                continue  # half a line, of a run that was killed or that still writes
            facts = {"_machine": one.get("machine", {}), "_when": one.get("when", "")}
            found[key(one["cell"])] = {**one["cell"], **one["result"], **facts}
    planned = list(dict.fromkeys(key(cell) for cell in claim.planned()))
    return [found[cell] for cell in planned if cell in found], len(planned)


# --- words of figures -------------------------------------------------------------------------


def number(value: float, digits: int = 1, sign: bool = False) -> str:
    text = f"{value:{'+' if sign else ''},.{digits}f}"
    # No "-0.0": a difference that rounds to nothing has no sign.
    return text.replace("-", "−") if float(text.replace(",", "")) else f"{0:.{digits}f}"


def interval(low: float, high: float, digits: int = 1, sign: bool = False) -> str:
    """``70.1–86.9``; with signs ``−0.2 to +1.4``."""
    joint = " to " if sign or low < 0 else "–"
    return f"{number(low, digits, sign)}{joint}{number(high, digits, sign)}"


def share(hits: float, n: float, *, long: bool = False) -> str:
    """A rate in per cent with Wilson's interval; ``long`` for a sentence."""
    if not n:
        return ""
    low, high = (100 * limit for limit in wilson(hits, n))
    limits = interval(low, high)
    if long:
        return f"{hits:,.0f} of {n:,.0f} ({100 * hits / n:.1f} %, {INTERVAL} {limits})"
    return f"{100 * hits / n:.1f} ({limits})"


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean with Student's t interval; no limits (NaN) for fewer than ``LEAST_RUNS``."""
    mean = statistics.fmean(values)
    if len(values) < LEAST_RUNS:
        return mean, math.nan, math.nan
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def mean_words(
    lines: Lines,
    name: str,
    scale: float = 1,
    digits: int = 1,
    unit: str = "",
    *,
    sign: bool = False,
    of: str = "run",
) -> str:
    """A mean for a sentence, over runs or what ``of`` names: ``88.1 % (95 % CI 85.0–91.2, 9
    runs)``."""
    values = [scale * float(line[name]) for line in lines if line.get(name) is not None]
    if not values:
        return ""
    middle, low, high = mean_interval(values)
    if unit == " %":
        # A rate lies between 0 and 100 %, whatever the spread of few runs says.
        low, high = max(low, 0.0), min(high, 100.0)
    runs = f"{len(values)} {of}{'s' if len(values) > 1 else ''}"
    limits = "" if math.isnan(low) else f"{INTERVAL} {interval(low, high, digits, sign)}, "
    return f"{number(middle, digits, sign)}{unit} ({limits}{runs})"


NO_DIFFERENCE = "no difference shown"


@dataclass(frozen=True, slots=True)
class Gap:
    """A difference or a ratio of runs on the same rows, with Student's t interval (of a ratio on
    the logarithm), and over what: ``43 pairs on 10 sets``. ``sets`` is their number, 0 where
    the lines name none."""

    value: float
    low: float
    high: float
    over: str
    sets: int = 0

    @property
    def has_interval(self) -> bool:
        return not math.isnan(self.low)

    def verdict(self, above: str = "better", below: str = "worse", nothing: float = 0) -> str:
        """What the interval shows; ``nothing`` is the value of no difference (1 of a ratio)."""
        if not self.has_interval:
            return "too few runs to say"
        if self.low <= nothing <= self.high:
            return NO_DIFFERENCE
        shown = above if self.low > nothing else below
        if self.sets >= LEAST_SETS:
            return shown
        return f"{shown} on {'these sets' if self.sets > 1 else 'this set'}"

    def words(self, scale: float = 1, digits: int = 1, unit: str = "", *, sign: bool = True) -> str:
        """``+3.2 points (95 % CI +1.5 to +5.1, 10 pairs)``."""
        limits = (
            "" if not self.has_interval else f"{INTERVAL} {self._limits(scale, digits, sign)}, "
        )
        return f"{number(scale * self.value, digits, sign)}{unit} ({limits}{self.over})"

    def short(self, scale: float = 1, digits: int = 1, *, sign: bool = True) -> str:
        """``+3.2 (+1.5 to +5.1)``."""
        limits = "" if not self.has_interval else f" ({self._limits(scale, digits, sign)})"
        return number(scale * self.value, digits, sign) + limits

    def _limits(self, scale: float, digits: int, sign: bool) -> str:
        return interval(scale * self.low, scale * self.high, digits, sign)


def paired(
    lines: Lines,
    name: str,
    first: str,
    second: str,
    by: Sequence[str] = ("rows", "data", "seed"),
    arm: str = "arm",
    *,
    times: bool = False,
) -> Gap | None:
    """First minus second (``times``: first ÷ second) of runs that are alike in ``by``; ``None``
    where there are none. Where at least ``LEAST_SETS`` sets were measured their means are the
    units of the interval. Of times only pairs of two runs that were measured within ``SAME_HOURS``
    count: the same machine may be half as fast later."""
    found = [{**dict.fromkeys(by), **line, "arm": line.get(arm)} for line in lines]
    found = [line for line in found if line.get(name) is not None]
    groups = matched(found, by, (first, second))
    if times:
        groups = [one for one in groups if _timed_together(one[first], one[second])]
    if not groups:
        return None
    change = math.log if times else float
    units: dict[Any, list[float]] = {}
    sets = {group[first].get("data") for group in groups}
    over_sets = len(sets) >= LEAST_SETS
    for place, group in enumerate(groups):
        value = change(group[first][name]) - change(group[second][name])
        units.setdefault(group[first]["data"] if over_sets else place, []).append(value)
    middle, low, high = mean_interval([statistics.fmean(values) for values in units.values()])
    back = math.exp if times else float
    pairs = f"{len(groups)} pair{'s' if len(groups) > 1 else ''}"
    over = f"{pairs} on {len(sets)} sets" if len(sets) > 1 else pairs
    return Gap(back(middle), back(low), back(high), over, len(sets - {None}))


def _timed_together(one: Line, other: Line) -> bool:
    """Whether they are two runs, within so many hours if their times are known."""
    if {**one, "arm": ""} == {**other, "arm": ""}:
        # A choice may be the very run that it is compared with.
        return False
    times = [str(line.get("_when", "")) for line in (one, other)]
    if not all(times):
        return True
    first, second = map(datetime.datetime.fromisoformat, times)
    return abs((first - second).total_seconds()) <= 3600 * SAME_HOURS


def loss_and_speed(
    what: str, peer: str, loss: Gap | None, speed: Gap | None, per: str = "second"
) -> list[ReadmeRow]:
    """A row of the README's table for a loss and a speed, each against the peer's."""
    if not loss or not speed:
        return []
    told = (
        f"{what}: Holdfast's test loss minus that of {peer} (lower is better); Holdfast's rows per "
        f"{per} ÷ those of {peer}"
    )
    figures = (
        f"{loss.short(1, 3)} nats, {loss.over}",
        f"{speed.short(1, 2, sign=False)}, {speed.over}",
    )
    verdicts = loss.verdict("worse", "better"), speed.verdict("faster", "slower", 1)
    shown = f"loss: {verdicts[0]}; speed: {verdicts[1]}"
    if verdicts[0] == verdicts[1] == NO_DIFFERENCE:
        shown = f"{NO_DIFFERENCE} in loss or speed"
    return [(told, "; ".join(figures), shown)]


CHOSEN = "the best on the other sets"


def chosen_elsewhere(
    lines: Lines, arms: Sequence[str], name: str = "accuracy", arm: str = "arm"
) -> list[Line]:
    """Choice with one set left out: for each number of rows and each set the lines of the arm with
    the highest mean over the other sets, as lines of ``CHOSEN``. Only cells that all arms have
    count."""
    found: list[Line] = []
    by = ("rows", "data", "seed")
    as_arms = [{**line, "arm": line.get(arm)} for line in lines if line.get(name) is not None]
    groups = matched(as_arms, by, arms)
    for rows in dict.fromkeys(group[arms[0]]["rows"] for group in groups):
        of_rows = [group for group in groups if group[arms[0]]["rows"] == rows]
        by_set: dict[str, list[Any]] = {}
        for group in of_rows:
            by_set.setdefault(group[arms[0]]["data"], []).append(group)
        for left_out, own in by_set.items():
            others = [those for data, those in by_set.items() if data != left_out]
            if others:
                best = max(arms, key=lambda one: _mean_of_sets(others, one, name))
                found += [{**group[best], arm: CHOSEN} for group in own]
    return found


def _mean_of_sets(sets: Sequence[Sequence[Mapping[str, Line]]], arm: str, name: str) -> float:
    return statistics.fmean(statistics.fmean(group[arm][name] for group in own) for own in sets)


# --- tables -----------------------------------------------------------------------------------


def renamed(lines: Lines, **fields: Mapping[Any, str]) -> list[Line]:
    """The lines with the words for a reader in place of some values of these fields."""

    def words(line: Line) -> Line:
        return {name: called.get(line.get(name), line.get(name)) for name, called in fields.items()}

    return [{**line, **words(line)} for line in lines]


def pick(lines: Lines, **wanted: Any) -> list[Line]:
    """The lines with these values; of a tuple of values any."""
    return [
        line
        for line in lines
        if all(
            line.get(name) in value if isinstance(value, tuple) else line.get(name) == value
            for name, value in wanted.items()
        )
    ]


def melt(lines: Lines, names: Mapping[str, str] | Sequence[str], into: str) -> list[Line]:
    """A line for each of ``names`` that a line has: the name as its ``arm``, the figure as
    ``into``. A mapping gives the fields by their arms."""
    fields = names if isinstance(names, Mapping) else {name: name for name in names}
    return [
        {**line, "arm": arm, into: line[field]}
        for line in lines
        for arm, field in fields.items()
        if line.get(field) is not None
    ]


def average(name: str, scale: float = 1, digits: int = 1, *, limits: bool = True) -> Column:
    """The mean over the lines of a row, with its interval where there are enough."""

    def column(lines: Lines) -> str:
        values = [scale * float(line[name]) for line in lines if _is_number(line.get(name))]
        if not values:
            return ""
        middle, low, high = mean_interval(values)
        inside = f" ({interval(low, high, digits)})" if limits and not math.isnan(low) else ""
        return number(middle, digits) + inside

    return column


def rate(hits: str, of: str, *, shares: bool = False) -> Column:
    """Summed hits ÷ summed trials in per cent, with Wilson's interval; with ``shares`` the stored
    ``hits`` are shares of the trials."""
    return lambda lines: share(*counts(lines, hits, of, shares=shares))


def counts(lines: Lines, hits: str, of: str, *, shares: bool = False) -> tuple[float, float]:
    """Hits and trials over the lines that have both."""
    found = [(float(line[hits]), float(line[of])) for line in lines if line.get(hits) is not None]
    return sum(h * n if shares else h for h, n in found), sum(n for _, n in found)


def largest(name: str, scale: float = 1, digits: int = 1) -> Column:
    """The largest value over the lines of a row."""
    return lambda lines: number(
        scale * max(float(line[name]) for line in lines if _is_number(line.get(name))), digits
    )


def text(name: str) -> Column:
    """The distinct values."""
    return lambda lines: ", ".join(
        dict.fromkeys(_word(line[name]) for line in lines if line.get(name) is not None)
    )


def runs(lines: Lines) -> str:
    return str(len(lines))


def seeds(lines: Lines) -> str:
    return str(len({line["seed"] for line in lines}))


def hours(field: str) -> Column:
    """The sum of ``field``, which is in seconds, in hours."""
    return lambda lines: f"{sum(line[field] for line in lines) / 3600:.1f}"


def table(
    by: Mapping[str, str], columns: Mapping[str, Column], heading: str = "", **wanted: Any
) -> Section:
    """Lines with the ``wanted`` values, a row for each combination of the keys of ``by`` (whose
    values are the heads). A column or a section without a figure is left out."""

    def section(lines: Lines) -> str:
        groups: dict[tuple[str, ...], list[Line]] = {}
        for line in pick(lines, **wanted):
            groups.setdefault(tuple(_word(line.get(name)) for name in by), []).append(line)
        cells = {
            head: [column(group) for group in groups.values()] for head, column in columns.items()
        }
        shown = {head: column for head, column in cells.items() if any(column)}
        if not shown:
            return ""
        rows = [
            [*names, *(column[place] for column in shown.values())]
            for place, names in enumerate(groups)
        ]
        return "\n\n".join(filter(None, [heading, markdown([*by.values(), *shown], rows)]))

    return section


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure to compare runs by: first minus second, or first ÷ second with ``times``."""

    name: str
    scale: float = 1
    digits: int = 1
    times: bool = False


def comparison(
    pairs: Sequence[tuple[str, str]],
    metrics: Mapping[str, Metric],
    split: str = "",
    heading: str = "",
    arm: str = "arm",
    by: Sequence[str] = ("rows", "data", "seed"),
    names: Mapping[str, str] | None = None,
) -> Section:
    """A row for each pair of systems, on the same rows (with ``split`` for each of its values), by
    their ``names`` for a reader."""

    def row(lines: Lines, first: str, second: str) -> list[str] | None:
        found = [
            paired(lines, m.name, first, second, by, arm, times=m.times) for m in metrics.values()
        ]
        over = next((one.over for one in found if one), None)
        if over is None:
            return None
        shown = [
            _figure(one, m) + ("" if one.over == over else f", {one.over}") if one else ""
            for one, m in zip(found, metrics.values(), strict=True)
        ]
        return [" − ".join((names or {}).get(one, one) for one in (first, second)), over, *shown]

    def section(lines: Lines) -> str:
        values = (
            list(dict.fromkeys(line[split] for line in lines if split in line)) if split else [None]
        )
        rows = []
        for value in values:
            some = pick(lines, **{split: value}) if split else lines
            found = [row(some, *pair) for pair in pairs]
            rows += [[str(value), *one] if split else one for one in found if one]
        systems = "Comparison, A − B (ratio: A ÷ B)"
        head = [*([split.capitalize()] if split else []), systems, "Pairs of runs", *metrics]
        return "\n\n".join(filter(None, [heading, markdown(head, rows)])) if rows else ""

    return section


def _figure(gap: Gap, of: Metric) -> str:
    return gap.short(of.scale, of.digits, sign=not of.times)


def _word(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


# --- pictures ---------------------------------------------------------------------------------

Point = tuple[float, float, float, float]
COLOURS = ("#0b6e4f", "#c8553d", "#3d5a80", "#8f6f00", "#7b3f8c")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 320, 52, 190, 16, 52


def curves(
    series: Mapping[str, Sequence[Point]], x_name: str, y_name: str, *, log: bool = False
) -> str:
    """Lines through (x, y, low, high) with their intervals as bars, named at the right."""
    place = math.log if log else float
    points = [point for one in series.values() for point in one]
    if not points:
        return ""
    lows = [y if math.isnan(low) else low for _, y, low, _ in points]
    highs = [y if math.isnan(high) else high for _, y, _, high in points]
    marks = ticks(min(lows), max(highs))
    across = AxisScale(
        min(place(p[0]) for p in points), max(place(p[0]) for p in points), LEFT + 12, WIDTH - RIGHT
    )
    up = AxisScale(marks[0], marks[-1], HEIGHT - BOTTOM, TOP)
    parts: list[str] = [element("rect", width=WIDTH, height=HEIGHT, fill="#ffffff")]
    for at, label in zip(marks, tick_labels(marks), strict=True):
        parts.append(
            element("line", x1=LEFT, x2=WIDTH - RIGHT + 8, y1=up(at), y2=up(at), stroke="#dddddd")
        )
        parts.append(_label(label, LEFT - 6, up(at) + 4, "end"))
    for x in sorted({p[0] for p in points}):
        parts.append(_label(f"{x:,g}", across(place(x)), HEIGHT - BOTTOM + 18, "middle"))
    parts.append(_label(x_name, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, "middle"))
    parts.append(_label(y_name, LEFT + 4, TOP - 4, "start"))
    parts += _drawn(series, lambda x: across(place(x)), up)
    drawing = element(
        "svg",
        element("title", f"{y_name} against {x_name}"),
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        width=WIDTH,
        height=HEIGHT,
    )
    return f"{drawing}\n".replace("><", ">\n<")


def _drawn(
    series: Mapping[str, Sequence[Point]], across: Callable[[float], float], up: AxisScale
) -> list[str]:
    parts: list[str] = []
    # Names of lines that end close together are moved apart, in the order of their ends.
    free = math.inf
    ends = sorted(((up(one[-1][1]), name) for name, one in series.items() if one), reverse=True)
    heights = {}
    for at, name in ends:
        free = min(at, free - 15)
        heights[name] = free
    for colour, (name, one) in zip(COLOURS, series.items(), strict=False):
        if not one:
            continue
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y, _, _ in one)
        parts.append(element("polyline", points=path, fill="none", stroke=colour, stroke_width="2"))
        for x, y, low, high in one:
            parts.append(element("circle", cx=across(x), cy=up(y), r=3, fill=colour))
            if not math.isnan(low):
                bar = {"x1": across(x), "x2": across(x), "y1": up(low), "y2": up(high)}
                parts.append(element("line", **bar, stroke=colour, stroke_opacity="0.5"))
        end = across(one[-1][0])
        parts.append(_label(name, end + 12, heights[name] + 4, "start", colour))
    return parts


def _label(words: str, x: float, y: float, anchor: str, fill: str = "#444444") -> str:
    font = {"font_size": "12", "font_family": "sans-serif"}
    return element("text", words, x=x, y=y, text_anchor=anchor, fill=fill, **font)


# --- pages ------------------------------------------------------------------------------------


THEMES = (
    "Accuracy",
    "Verdicts",
    "Data",
    "Decisions and intervals",
    "Service",
    "Speed and memory",
    "Other",
)
# Benchmarks that store no lines: their commands print, or their figures were never stored.
UNSTORED = {
    "Serving under load": "python benchmarks/serving.py --run RUN",
    "Rules for the best checkpoint, on recorded runs": "python benchmarks/kept_state.py --record",
    "Verdicts on recorded runs and on other trainers' logs": "python benchmarks/verdicts.py",
}


def amount(done: int, planned: int) -> str:
    if done == planned:
        return "the only cell" if planned == 1 else f"all {planned:,} cells"
    return f"{done:,} of {planned:,} planned cells"


def is_measured(claim: Claim, lines: Lines, planned: int) -> bool:
    """Whether there is anything to say: see ``LEAST_SHARE``."""
    if not lines or not claim.finding(lines):
        return False
    return len(lines) >= LEAST_SHARE * planned or INTERVAL in claim.finding(lines)


def page(claim: Claim, lines: Lines, planned: int) -> str:
    limits = claim.limits if isinstance(claim.limits, str) else claim.limits(lines)
    parts = [
        f"# {claim.title}",
        f"**{claim.finding(lines)}**",
        f"Measured: {amount(len(lines), planned)}.",
        f"![{claim.title}]({claim.name}.svg)" if claim.picture and claim.picture(lines) else "",
        claim.method.strip(),
        *(section(lines).strip() for section in claim.sections),
        f"## Limits\n\n{limits.strip()}" if limits else "",
        f"## How to repeat it\n\n`{claim.run()}`\n\n{origin(claim, lines)}",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def origin(claim: Claim, lines: Lines) -> str:
    """Machines, versions and dates, as the lines have them."""
    machines = [line["_machine"] for line in lines]
    names = Counter(
        str(line.get("cpu") or one.get("cpu")) for line, one in zip(lines, machines, strict=True)
    )
    shown = ", ".join(
        f"{name} ({count:,} cell{'s' * (count != 1)})" if len(names) > 1 else name
        for name, count in names.most_common()
    )
    torch = ", ".join(sorted({str(one["torch"]) for one in machines if one.get("torch")}))
    days = sorted(str(line["_when"])[:10] for line in lines if line["_when"])
    when = f" Measured {days[0]} to {days[-1]}." if days and days[0] != days[-1] else ""
    when = f" Measured on {days[0]}." if days and days[0] == days[-1] else when
    files = ", ".join(f"[{name}.jsonl]({name}.jsonl)" for name in claim.files or (claim.name,))
    return f"Processor: {shown}. PyTorch {torch}.{when} Raw results: {files}."


def claims() -> list[Claim]:
    """The claims of the scripts in this folder, theme by theme."""
    found: list[Claim] = []
    for path in sorted(HERE.rglob("*.py")):
        if re.search(r"^CLAIMS? = ", path.read_text("utf-8"), re.MULTILINE):
            name = ".".join(path.relative_to(HERE).with_suffix("").parts)
            module = importlib.import_module(name)
            found += getattr(module, "CLAIMS", None) or [module.CLAIM]
    return sorted(found, key=lambda one: (THEMES.index(one.theme), one.title))


def files() -> dict[Path, str]:
    """Every file that the lines give, by its path: pages, pictures, the index."""
    made: dict[Path, str] = {}
    index = [INTRODUCTION]
    rows = ["| Comparison or rate | Result (95 % CI) | Conclusion |", "|---|---|---|"]
    unmeasured = [f"- {title}: `{command}`" for title, command in UNSTORED.items()]
    theme = ""
    for claim in claims():
        lines, planned = stored_lines(claim)
        if not is_measured(claim, lines, planned):
            unmeasured.append(f"- {claim.title}: `{claim.run()}`")
            continue
        if claim.theme != theme:
            theme = claim.theme
            index += [f"## {theme}", ""]
        run = amount(len(lines), planned)
        index.append(f"- [{claim.title}](results/{claim.name}.md): {claim.finding(lines)} ({run})")
        made[RESULTS / f"{claim.name}.md"] = page(claim, lines, planned)
        link = f"benchmarks/results/{claim.name}.md"
        rows += [
            f"| [{what}]({link}) | {figure} | {word} |"
            for what, figure, word in claim.readme(lines)
        ]
        if claim.picture and (drawing := claim.picture(lines)):
            made[RESULTS / f"{claim.name}.svg"] = drawing
    text = "\n".join([*index, UNMEASURED, *sorted(unmeasured)])
    # A heading has an empty line above it.
    made[BOOK] = re.sub(r"(?<=[^\n])\n## ", "\n\n## ", text) + "\n"
    table_of_readme = "\n".join([*rows, ""])
    made[README] = README_TABLE.sub(lambda _: table_of_readme, README.read_text("utf-8"))
    return made


def main() -> None:
    made = files()
    for old in {*RESULTS.glob("*.md"), *RESULTS.glob("*.svg")} - set(made):
        old.unlink()
    for path, words in made.items():
        path.write_text(words, encoding="utf-8")
    print(f"{len(made)} files, {sum(words.count(chr(10)) for words in made.values()):,} lines")


if __name__ == "__main__":
    main()
