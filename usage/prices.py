"""What usage costs by the list, exactly; what has no price has none, never zero.

Source: upstream pricing page, as written down in `prices.json`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal

from usage.tokens import Part, Tokens, Usage

_MILLION = Decimal(1_000_000)
_NANO = Decimal("1e-9")
# `claude-opus-4-5-20251101` is priced as `claude-opus-4-5`.
_VERSION = re.compile(r"-(?:\d{8}|latest)$")


@dataclass(frozen=True, slots=True)
class Rates:
    """US dollars per million tokens of each class."""

    input: Decimal
    output: Decimal
    write_5m: Decimal
    write_1h: Decimal
    read: Decimal

    def cost(self, tokens: Tokens) -> Decimal:
        return (
            self.input * tokens.input
            + self.output * tokens.output
            + self.write_5m * tokens.write_5m
            + self.write_1h * tokens.write_1h
            + self.read * tokens.read
        ) / _MILLION

    def times(self, factor: Decimal) -> "Rates":
        return Rates(
            self.input * factor,
            self.output * factor,
            self.write_5m * factor,
            self.write_1h * factor,
            self.read * factor,
        )


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs from a day on.

    `model` is an alias without a date, or the beginning of one and a `*`.
    """

    model: str
    effective_from: date
    rates: Rates
    fast: Rates | None = None
    # A prompt of more tokens than this is priced as `tier` says, all of it.
    tier_above: int | None = None
    tier: Rates | None = None
    web_search: Decimal = Decimal("0.01")
    batch_factor: Decimal = Decimal("0.5")
    geo_factors: Mapping[str, Decimal] = field(
        default_factory=lambda: {"us": Decimal("1.1")}
    )
    # Entered or changed here; an update of the gateway does not replace it.
    is_own: bool = False


@dataclass(frozen=True, slots=True)
class Cost:
    """What a request cost by the list, and since when that price holds."""

    dollars: Decimal
    price_date: date


def to_nano(dollars: Decimal) -> int:
    """Round an amount to whole billionths of a dollar."""
    return int((dollars / _NANO).to_integral_value(ROUND_HALF_EVEN))


def from_nano(nano: int) -> Decimal:
    """The amount that so many billionths of a dollar are."""
    return nano * _NANO


class PriceTable:
    """Finds the price of a model on a day."""

    def __init__(self, prices: Iterable[Price]) -> None:
        self._found: dict[tuple[str, date], Price | None] = {}
        self._exact: dict[str, list[Price]] = {}
        self._prefixes: dict[str, list[Price]] = {}
        for price in prices:
            is_prefix = price.model.endswith("*")
            group = self._prefixes if is_prefix else self._exact
            group.setdefault(price.model.removesuffix("*"), []).append(price)

    def find(self, model: str, on: date) -> Price | None:
        """Find the price of *model* on a day; None if it has none then.

        Its own price counts before one of a beginning, and a longer beginning before a
        shorter. Among these, one's own counts before one that was shipped, and then
        the newest.
        """
        # Few models are in use while a table lives.
        if (model, on) not in self._found:
            self._found[model, on] = self._find(model, on)
        return self._found[model, on]

    def _find(self, model: str, on: date) -> Price | None:
        alias = _VERSION.sub("", model)
        longest_first = sorted(self._prefixes, key=len, reverse=True)
        candidates = [
            self._exact.get(model, []),
            self._exact.get(alias, []),
            *(self._prefixes[it] for it in longest_first if alias.startswith(it)),
        ]
        for prices in candidates:
            in_force = [price for price in prices if price.effective_from <= on]
            if in_force:
                return max(in_force, key=lambda it: (it.is_own, it.effective_from))
        return None

    def cost(self, usage: Usage, model: str | None, on: date) -> Cost | None:
        """Price what an answer of *model* used; None if it cannot be priced."""
        price = self.find(model, on) if model is not None else None
        if price is None or usage.is_unreadable:
            return None
        dollars = price.web_search * usage.web_searches
        for run in usage.runs:
            cost = self._cost_of_run(run, usage, price, on)
            if cost is None:
                return None
            dollars += cost
        return Cost(dollars, price.effective_from)

    def rates(self, usage: Usage, model: str, on: date) -> Rates | None:
        """What its tokens cost if it was one run of *model*, discounts and all."""
        price = self.find(model, on)
        if price is None or usage.is_unreadable:
            return None
        return self._rates_of_run(Part(usage.stated), usage, price, on)

    def _cost_of_run(
        self, run: Part, usage: Usage, main: Price, on: date
    ) -> Decimal | None:
        rates = self._rates_of_run(run, usage, main, on)
        return None if rates is None else rates.cost(run.tokens)

    def _rates_of_run(
        self, run: Part, usage: Usage, main: Price, on: date
    ) -> Rates | None:
        price: Price | None = main
        if run.model is not None:
            price = self.find(run.model, on)
        if price is None:
            return None
        # Speed is asked for, and told, of the model that answers.
        if usage.speed == "fast" and price.model == main.model:
            rates = price.fast
        elif price.tier_above is not None and _prompt(run, usage) > price.tier_above:
            rates = price.tier
        else:
            rates = price.rates
        factor = price.geo_factors.get(usage.inference_geo or "", Decimal(1))
        if usage.service_tier == "batch":
            factor *= price.batch_factor
        return rates if rates is None or factor == 1 else rates.times(factor)


def _prompt(run: Part, usage: Usage) -> int:
    """The size of the prompt that decides on the tier.

    It is that of the request, or of each message run if these add up to the request.
    """
    if run.kind != "message":
        return run.tokens.prompt
    messages = [part.tokens for part in usage.runs if part.kind == "message"]
    adds_up = sum(messages, Tokens()) == usage.stated
    return run.tokens.prompt if adds_up else usage.stated.prompt
