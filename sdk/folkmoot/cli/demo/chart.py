"""A survival curve for the terminal and as a picture."""

from collections.abc import Sequence
from pathlib import Path

from folkmoot.cli.demo.truth import Curve

_BLOCKS = " ▁▂▃▄▅▆▇█"


def terminal(curve: Curve, *, width: int = 72, height: int = 10) -> list[str]:
    """The curve as lines of text: survival from 0 to 100 % upwards, days to the right."""
    end = max(curve.times)
    levels = [_survival_at(curve, end * (column + 0.5) / width) * height for column in range(width)]
    lines = []
    for row in range(height, 0, -1):
        cells = "".join(_BLOCKS[round(min(1.0, max(0.0, level - row + 1)) * 8)] for level in levels)
        lines.append(f"{100 * row // height:4d} % │{cells}")
    ticks = "".join(f"{round(end * part / 4):<{width // 4}}" for part in range(4))
    return [*lines, "       └" + "─" * width, "        " + ticks + f"{round(end)} days"]


def picture(curve: Curve, path: Path, *, title: str, at_risk_at: Sequence[float]) -> None:
    """The curve as PNG, with the numbers at risk below it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    plot, risk = figure.subplots(2, 1, height_ratios=[8, 1], sharex=True)
    plot.step([0.0, *curve.times], [1.0, *curve.survival], where="post", color="#1f5f8b", linewidth=1.8)
    plot.set(title=title, ylabel="survival", ylim=(0, 1.02))
    plot.grid(alpha=0.25)
    risk.set(yticks=[], xlabel="days (patients at risk above the axis)", ylim=(0, 1))
    for spine in ("top", "left", "right"):
        risk.spines[spine].set_visible(False)
    for moment in at_risk_at:
        risk.text(moment, 0.35, str(_at_risk_at(curve, moment)), ha="center", fontsize=9)
    figure.savefig(path, dpi=140)


def _survival_at(curve: Curve, moment: float) -> float:
    level = 1.0
    for time, survival in zip(curve.times, curve.survival, strict=True):
        if time > moment:
            break
        level = survival
    return level


def _at_risk_at(curve: Curve, moment: float) -> int:
    return next((count for time, count in zip(curve.times, curve.at_risk, strict=True) if time >= moment), 0)
