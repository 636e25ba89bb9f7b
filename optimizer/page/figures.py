"""Numbers as people read them."""

from datetime import UTC, datetime

from optimizer.candidate import Timing

NONE, TIMES, MINUS = "\N{EN DASH}", "\N{MULTIPLICATION SIGN}", "\N{MINUS SIGN}"


def milliseconds(seconds: float) -> str:
    """To three digits: "0.0183 ms", "12.4 ms"."""
    value = seconds * 1e3
    if value >= 100:
        return f"{value:,.0f} ms"
    return f"{value:#.3g} ms"


def percent(share: float) -> str:
    if share == 0:
        return "0 %"
    return "< 0.001 %" if share < 1e-5 else f"{share * 100:.2g} %"


def rate(timing: Timing) -> str:
    return f"{timing.rows_per_s:,.0f}" if timing.rows_per_s >= 100 else f"{timing.rows_per_s:.3g}"


def duration(seconds: float) -> str:
    """As "12.3 s" or "4 min 5 s"."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def moment(iso: str) -> str:
    """ISO 8601 as people write it: "2025-02-03 10:11 UTC"."""
    try:
        return datetime.fromisoformat(iso).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return iso
