"""Pictures of results, as files: drawn by matplotlib, which is an extra."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from microgpt.errors import MicrogptError
from microgpt.files import write

KINDS = (".svg", ".png", ".pdf")
COLOURS = {"worse": "#b3401f", "better": "#1f6fc0"}  # as in the page; and a mark besides
GREY = "#777777"
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
        about = setting["about"].replace(", ", ",\n")
        axis.set_title(setting["data"] + (f"\n{about}" if about else ""), fontsize=8)
        axis.set_xlabel("points" if exact else "nats", fontsize=7)
        axis.tick_params(labelsize=7)
    axes[0].set_yticks(range(len(names)), names, fontsize=8)
    axes[0].invert_yaxis()
    save(figure, path)
