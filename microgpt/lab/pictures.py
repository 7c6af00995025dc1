"""Pictures of results, as files: drawn by matplotlib, which is an extra."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from microgpt.errors import MicrogptError
from microgpt.files import write
from microgpt.lab.statistics import Interval
from microgpt.lab.sweep import Point, PowerLaw

KINDS = (".svg", ".png", ".pdf")
COLOURS = {"worse": "#b3401f", "better": "#1f6fc0"}  # as in the page; and a mark besides
GREY = "#777777"
MOST_TICKS = 8  # values that are written below an axis one by one
MOST_APART = 60  # points that are joined by what they have in common
MARKS = {"worse": "v", "better": "^", "can't tell": "o", "too few seeds": "x"}


def check(path: Path) -> None:
    """Refuse a picture before hours of work, not after.

    Raises:
        MicrogptError: its name ends in something else, or there is nothing to draw it with.
    """
    if path.suffix.lower() not in KINDS:
        kinds = f"{', '.join(KINDS[:-1])} or {KINDS[-1]}"
        raise MicrogptError(f"A picture's name ends in {kinds}, and {path.name} does not.")
    _pyplot()


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise MicrogptError(
            "Pictures are drawn with matplotlib, which is not installed: "
            "pip install 'microgpt-explainer[plots]'."
        ) from None
    matplotlib.use("agg")
    matplotlib.rcParams |= {"svg.hashsalt": "microgpt", "font.size": 9, "axes.spines.top": False}
    matplotlib.rcParams |= {"axes.spines.right": False, "svg.fonttype": "none"}
    from matplotlib import pyplot

    return pyplot


def save(figure: Any, path: Path) -> None:
    """Write a figure to a file, and forget it."""
    buffer = io.BytesIO()
    plain = {"metadata": {"Date": None}} if path.suffix.lower() in (".svg",) else {}
    figure.savefig(buffer, format=path.suffix[1:].lower(), bbox_inches="tight", dpi=160, **plain)
    _pyplot().close(figure)
    write(path, buffer.getvalue())


def parts(found: dict[str, Any], path: Path) -> None:
    """The table of parts: in each column the effect of every removal, with its interval.

    Args:
        found: as `Parts.plain` gives it.
        path: where to.

    Raises:
        MicrogptError: there is no matplotlib, or the file cannot be written.
    """
    pyplot = _pyplot()
    names = list(dict.fromkeys(cell["variant"] for cell in found["cells"]))
    settings = found["settings"]
    figure, axes = pyplot.subplots(
        1, len(settings), figsize=(1.5 * len(settings) + 1.5, 0.3 * len(names) + 1.4), sharey=True
    )
    for axis, setting in zip(axes, settings):
        cells = [cell for cell in found["cells"] if cell["setting"] == setting]
        axis.axvline(0, color=GREY, linewidth=0.6)
        for cell in cells:
            if cell["differences"]:
                d, row = cell["differences"][0], names.index(cell["variant"])
                unit = 100 if d["metric"] == "exact" else 1
                colour = COLOURS.get(cell["verdict"], GREY)
                axis.plot([unit * d["low"], unit * d["high"]], [row, row], color=colour)
                mark = MARKS[cell["verdict"]]
                axis.plot(unit * d["difference"], row, mark, color=colour, markersize=4)
        exact = any(c["differences"] and c["differences"][0]["metric"] == "exact" for c in cells)
        if exact:
            axis.set_xlim(-110, 60)
        else:
            axis.set_xscale("symlog", linthresh=0.05)
            axis.set_xticks([0, 0.1, 1], ["0", "0.1", "1"])
        about = setting["about"].replace(", ", ",\n")
        axis.set_title(setting["data"] + (f"\n{about}" if about else ""), fontsize=8)
        axis.set_xlabel("points" if exact else "nats", fontsize=7)
        axis.tick_params(labelsize=7)
    axes[0].set_yticks(range(len(names)), names, fontsize=8)
    axes[0].invert_yaxis()
    save(figure, path)


def sweep(
    points: Sequence[Point], names: Sequence[str], laws: dict[str, PowerLaw], path: Path
) -> None:
    """The curves of a sweep: the loss against each number, and against how large the model is.

    Args:
        points: settings, and what was found there.
        names: of the numbers that were varied.
        laws: power laws, by "parameters" or "compute".
        path: where to.

    Raises:
        MicrogptError: there is no matplotlib, or the file cannot be written.
    """
    pyplot = _pyplot()
    panels = [name for name in names if len({point.numbers[name] for point in points}) > 1]
    panels += [size for size in ("parameters", "compute") if size in laws]
    panels = panels or list(names[:1])
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(3.4 * len(panels), 3), sharey=True, squeeze=False
    )
    for axis, name in zip(axes[0], panels):
        of_size = name in laws and name not in names
        groups: dict[tuple[tuple[str, float], ...], list[Point]] = {}
        for point in points:
            others = () if of_size else tuple((n, point.numbers[n]) for n in names if n != name)
            groups.setdefault(others if len(names) > 1 and len(points) < 60 else (), []).append(
                point
            )
        for others, group in groups.items():
            known = [(_place(p, name), p.held_out) for p in group if p.held_out is not None]
            line = sorted(((x, found) for x, found in known if x), key=lambda pair: pair[0])
            label = ", ".join(f"{n}={v:g}" for n, v in others)
            joined = "none" if of_size or (len(groups) == 1 and len(names) > 1) else "-"
            axis.errorbar(
                [x for x, _ in line], [found.mean for _, found in line],
                yerr=[_half(found) for _, found in line], fmt="o", markersize=3, linestyle=joined,
                linewidth=1, elinewidth=0.8, label=label or None,
            )  # fmt: skip
        if of_size:
            sizes = [x for p in points if (x := _place(p, name))]
            law, low, high = laws[name], min(sizes), max(sizes)
            xs = [low * (high / low) ** (i / 60) for i in range(61)]
            words = f"exponent {law.exponent:.2g} ({law.range})"
            axis.plot(xs, [law(x) for x in xs], color=GREY, linewidth=1, label=words)
        values = [x for p in points if (x := _place(p, name))]
        if values and min(values) > 0 and max(values) / min(values) > 4:
            axis.set_xscale("log")
        if name in names and len(set(values)) <= MOST_TICKS:
            ticks = sorted(set(values))
            axis.set_xticks(ticks, [f"{x:g}" for x in ticks], fontsize=7)
            axis.minorticks_off()
        failed = [_place(p, name) for p in points if p.held_out is None]
        for x in failed:
            axis.plot(x, 0.97, "x", color=COLOURS["worse"], transform=axis.get_xaxis_transform())
        axis.set_xlabel({"compute": "multiply-adds of training"}.get(name, name))
        if axis.get_legend_handles_labels()[1] and len(groups) <= 12:
            place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 3}
            axis.legend(fontsize=6, frameon=False, columnspacing=1, **place)
    axes[0][0].set_ylabel("held-out loss (nats a token)")
    save(figure, path)


def _place(point: Point, name: str) -> float | None:
    number = point.numbers.get(name, getattr(point, name, None))
    return None if number is None else float(number)


def _half(found: Interval) -> float:
    return found.high - found.mean if math.isfinite(found.high) else 0.0
