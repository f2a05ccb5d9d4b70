"""Tells in words what happened to a request, for the page that shows one; pure.

It says what the row says. Where prices have changed since, or an answer was made of
several runs, the parts would not add up to the cost that was stored, and are left out.
"""

from dataclasses import dataclass
from decimal import Decimal

from usage.models import RequestRow
from usage.outcome import EndReason, Outcome
from usage.prices import PriceTable, from_nano, to_nano
from usage.tokens import Tokens, Usage

_ROUTING = {
    "affinity": "The conversation stays with the account that served it before.",
    "round_robin": "Accounts take turns, and it was this one's.",
    "moved": "The account of the conversation could not serve; this one took it over.",
    "home": "What this key makes is made by this account.",
    "pool": "All accounts were asked, each for its part of the list.",
    "owner": "What was asked about belongs to this account.",
    "nobody": "No account could be asked.",
}

_ENDS = {
    EndReason.REJECTED: "The gateway refused it itself; the upstream never saw it.",
    EndReason.CLIENT_GONE: "The caller left before the end of the answer.",
    EndReason.UPSTREAM_ERROR: "The upstream failed, and no attempt was left to make.",
    EndReason.TIMEOUT: "It took longer than it may, and was ended.",
    EndReason.TRUNCATED: "The answer stopped before its last event.",
    EndReason.DRAINED: "The worker was stopped before the answer had ended.",
    EndReason.REVOKED: "An operator ended the session that it belongs to.",
    EndReason.FAILED: "The gateway itself failed; its log has the cause.",
    EndReason.CRASHED: "The worker died on the way, so nobody saw the end of it.",
}


@dataclass(frozen=True, slots=True)
class UsageLine:
    """Tokens of a class or searches; price and cost if they are known."""

    what: str
    count: int
    rate: str = ""
    cost: Decimal | None = None

    @property
    def count_shown(self) -> str:
        return f"{self.count:,}"

    @property
    def cost_shown(self) -> str:
        return "" if self.cost is None else f"${_plain(self.cost)}"


@dataclass(frozen=True, slots=True)
class Bill:
    """What a request used and what it cost."""

    lines: tuple[UsageLine, ...]
    total: Decimal | None
    words: str

    @property
    def total_shown(self) -> str:
        return "" if self.total is None else f"${_plain(self.total)}"

    @property
    def has_prices(self) -> bool:
        return any(line.rate for line in self.lines)


def routing(row: RequestRow) -> str:
    """Why this account was asked."""
    if not row.account_id:
        return "No account was asked."
    return _ROUTING.get(row.routing, row.routing or "It was not recorded.")


def end(row: RequestRow) -> str:
    """How it ended, in a sentence."""
    reason = EndReason(row.end_reason)
    if reason is not EndReason.COMPLETE:
        return _ENDS[reason]
    match Outcome(row.outcome):
        case Outcome.SERVED:
            return "The caller got the whole answer."
        case Outcome.REFUSED:
            return f"The upstream refused it with {row.status}, as the caller was told."
    return f"The upstream failed with {row.status}, as the caller was told."


def bill(row: RequestRow, prices: PriceTable) -> Bill:
    """Split what it used by class, each with its price."""
    tokens = Tokens(
        input=row.input_tokens,
        write_5m=row.write_5m_tokens,
        write_1h=row.write_1h_tokens,
        read=row.read_tokens,
        output=row.output_tokens,
    )
    lines = _priced_lines(row, tokens, prices) or _bare_lines(row, tokens)
    return Bill(lines, row.cost, _in_words(row, lines))


def _in_words(row: RequestRow, lines: tuple[UsageLine, ...]) -> str:
    said = []
    if row.is_unpriced:
        said.append("It used something that has no price, so its cost is not known.")
    elif row.cost is None:
        said.append("It used nothing that costs anything.")
    elif row.is_notional:
        said.append("Covered by the account's plan: this is what it costs by the list.")
    else:
        said.append(f"By the price list of {row.price_date}.")
    if row.cost and not any(line.rate for line in lines):
        said.append(
            "Prices have changed since, or several runs of models went into it, so it "
            "is not split."
        )
    if row.is_incomplete:
        said.append("An answer broke off, so it may have used more than this.")
    return " ".join(said)


_CLASSES = (
    ("input", "Input"),
    ("write_5m", "Cache write, 5 minutes"),
    ("write_1h", "Cache write, 1 hour"),
    ("read", "Cache read"),
    ("output", "Output"),
)


def _bare_lines(row: RequestRow, tokens: Tokens) -> tuple[UsageLine, ...]:
    lines = [UsageLine(words, getattr(tokens, name)) for name, words in _CLASSES]
    if row.web_searches:
        lines.append(UsageLine("Web searches", row.web_searches))
    return tuple(lines)


def _priced_lines(
    row: RequestRow, tokens: Tokens, prices: PriceTable
) -> tuple[UsageLine, ...]:
    """The same with prices; none of them if these do not come to the stored cost."""
    usage = Usage(
        tokens,
        web_searches=row.web_searches,
        service_tier=row.service_tier or None,
        speed=row.speed or None,
        inference_geo=row.inference_geo or None,
    )
    day = row.started_at.date()
    price = prices.find(row.model, day)
    rates = prices.rates(usage, row.model, day)
    if row.cost is None or price is None or rates is None:
        return ()
    lines = []
    for name, words in _CLASSES:
        count, rate = getattr(tokens, name), getattr(rates, name)
        cost = rate * count / 1_000_000
        lines.append(UsageLine(words, count, f"${_plain(rate)} per million", cost))
    if row.web_searches:
        cost = price.web_search * row.web_searches
        rate = f"${_plain(price.web_search)} each"
        lines.append(UsageLine("Web searches", row.web_searches, rate, cost))
    total = sum((line.cost or Decimal(0) for line in lines), Decimal(0))
    # What is stored was rounded.
    return tuple(lines) if from_nano(to_nano(total)) == row.cost else ()


def _plain(amount: Decimal) -> str:
    return f"{amount.normalize():f}"
