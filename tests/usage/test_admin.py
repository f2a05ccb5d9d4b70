"""Prices as operators change them."""

import pytest
from django.urls import reverse

from usage import pricing
from usage.models import PriceRow

pytestmark = pytest.mark.django_db

LIST = reverse("admin:usage_pricerow_changelist")
ADD = reverse("admin:usage_pricerow_add")


def page_of(price: PriceRow, what: str = "change") -> str:
    return reverse(f"admin:usage_pricerow_{what}", args=[price.pk])


def shipped(model: str = "claude-haiku-5-5") -> PriceRow:
    return PriceRow.objects.get(model=model)


def fields_of(response) -> dict[str, str]:
    """What a browser would send if nothing was changed."""
    form = response.context["adminform"].form
    values = {name: form[name].value() for name in form.fields}
    return {name: str(it) for name, it in values.items() if it not in (None, "")}


def test_the_list_shows_every_price(admin_client):
    text = admin_client.get(LIST).content.decode()

    assert "claude-haiku-5-5" in text
    assert "shipped" in text


def test_a_shipped_price_that_is_saved_is_ones_own(admin_client):
    price = shipped()
    fields = fields_of(admin_client.get(page_of(price)))

    response = admin_client.post(page_of(price), fields | {"tier_input": "0.75"})

    assert response.status_code == 302
    price.refresh_from_db()
    assert price.is_own
    pricing.sync()
    assert str(shipped().tier_input) == "0.750000"


def test_a_price_can_be_added_and_taken_away_again(admin_client):
    fields = fields_of(admin_client.get(ADD))
    rates = dict.fromkeys(("input", "output", "write_5m", "write_1h", "read"), "1")
    new = {"model": "claude-x*", "effective_from": "2026-11-25"}
    admin_client.post(ADD, fields | rates | new)
    price = PriceRow.objects.get(model="claude-x*")
    assert price.is_own

    admin_client.post(page_of(price, "delete"), {"post": "yes"})

    assert not PriceRow.objects.filter(model="claude-x*").exists()


def test_a_shipped_price_cannot_be_taken_away(admin_client):
    response = admin_client.post(page_of(shipped(), "delete"), {"post": "yes"})

    assert response.status_code == 403
    assert shipped()
    assert "delete_selected" not in admin_client.get(LIST).content.decode()


def test_half_a_tier_is_refused_in_words(admin_client):
    price = shipped()
    fields = fields_of(admin_client.get(page_of(price)))
    del fields["tier_read"]

    response = admin_client.post(page_of(price), fields)

    assert "give all of it or nothing" in response.content.decode()
