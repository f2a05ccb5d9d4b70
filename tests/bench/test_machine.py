import platform

import pytest

from bench import machine

STAT = """cpu  100 2 30 4000 50 6 7 8 90 10
cpu0 50 1 15 2000 25 3 3 4 45 5
"""


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("processor\t: 0\nmodel name\t: Abacus 9 @ 2.00GHz\n", "Abacus 9 @ 2.00GHz"),
        ("processor\t: 0\nModel\t\t: Pi 5: rev 1.0\n", "Pi 5: rev 1.0"),
        ("processor\t: 0\n", platform.machine()),
        ("", platform.machine()),
    ],
)
def test_the_processor_is_named(cpuinfo, expected):
    assert machine.cpu_model(cpuinfo) == expected


def test_busy_is_all_but_idle_and_waiting_and_counts_guests_once():
    assert machine.busy_ticks(STAT) == 100 + 2 + 30 + 6 + 7 + 8


def test_packages_that_are_not_installed_are_left_out():
    versions = machine.package_versions(("uvicorn", "no-such-package"))

    assert list(versions) == ["uvicorn"]
