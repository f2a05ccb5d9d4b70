"""What the admin pages of usage show in a cell: outcomes, amounts, spans of time."""

from decimal import ROUND_HALF_UP, Decimal

from django.template.loader import render_to_string
from django.utils.html import format_html

from usage.models import RequestRow
from usage.outcome import Outcome

_CENT = Decimal("0.01")
_HUNDREDTH_OF_A_CENT = Decimal("0.0001")

# How the style sheet knows them.
_LOOKS = {
    Outcome.SERVED: "success",
    Outcome.REFUSED: "trouble",
    Outcome.GONE: "inactive",
    Outcome.FAILED: "failure",
}


def outcome_badge(row: RequestRow) -> str:
    outcome = Outcome(row.outcome)
    return render_to_string(
        "claudeproxy/_status_badge.html",
        {"status": _LOOKS[outcome], "word": outcome.label},
    )


def status(row: RequestRow) -> str:
    return str(row.status) if row.status else "none sent"


def tokens(row: RequestRow) -> str:
    """What went in and what came out."""
    prompt = (
        row.input_tokens + row.write_5m_tokens + row.write_1h_tokens + row.read_tokens
    )
    if not (prompt or row.output_tokens):
        return "none"
    return format_html(
        '{} in<span class="identifier">{} out</span>',
        f"{prompt:,}",
        f"{row.output_tokens:,}",
    )


def cost(row: RequestRow) -> str:
    if row.is_unpriced:
        return "unpriced"
    if row.cost is None:
        return "none"
    if row.is_notional:
        return format_html(
            '{}<span class="identifier">notional</span>', dollars(row.cost)
        )
    return dollars(row.cost)


def dollars(amount: Decimal) -> str:
    """An amount to the cent, or if it is less than that, to a hundredth of one."""
    if amount == 0:
        return "$0"
    if amount < _HUNDREDTH_OF_A_CENT:
        return f"under ${_HUNDREDTH_OF_A_CENT}"
    step = _CENT if amount >= 1 else _HUNDREDTH_OF_A_CENT
    return f"${amount.quantize(step, ROUND_HALF_UP):,f}"


def milliseconds(span: float | None, otherwise: str = "") -> str:
    """A span as people say it: `350 ms`, `12.4 s`."""
    if span is None:
        return otherwise
    return f"{span:,.0f} ms" if span < 1000 else f"{span / 1000:,.1f} s"
