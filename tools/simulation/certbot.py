"""certbot on a simulated host: when it renews, and when a renewal is due.

The rules are those of `should_autorenew` in certbot 2.1, 4.0 and 5.8. The module shares no code
with the two programs, so that a mistake in their rules shows.
"""

from __future__ import annotations

from typing import NamedTuple

from certbot_renewal_report import DAY
from tools.simulation.frequencies import (
    INTERVALS,
    LETS_ENCRYPT,
    LETS_ENCRYPT_HALF_WINDOW,
    SHORT_LIFETIME,
    WINDOWS,
)
from tools.simulation.hosts import Lineage

FIRST_VERSION_WITH_A_THIRD = (4, 0)  # before: 30 days before the expiry
FIRST_VERSION_WITH_ARI = (4, 1)


class Window(NamedTuple):
    """When a CA wants a certificate renewed (ARI), in Unix seconds."""

    begin: float
    end: float


# ---- When a renewal is due ---------------------------------------------------------------------
def window_of(lineage: Lineage, version: tuple[int, int]) -> Window | None:
    """Return the window of a certificate; None if certbot does not ask, or the CA has none.

    A CA that revokes the certificate moves its window into the past.
    """
    if version < FIRST_VERSION_WITH_ARI:
        return None
    if lineage.ca == LETS_ENCRYPT:
        middle = 1 / 2 if lineage.lifetime < SHORT_LIFETIME else 2 / 3
        begin, end = middle - LETS_ENCRYPT_HALF_WINDOW, middle + LETS_ENCRYPT_HALF_WINDOW
    elif lineage.ca in WINDOWS:
        begin, end = WINDOWS[lineage.ca]
    else:
        return None
    if lineage.revoked_at:
        return Window(lineage.revoked_at - 2 * DAY, lineage.revoked_at - DAY)
    not_before = lineage.certificate.not_before
    return Window(not_before + begin * lineage.lifetime, not_before + end * lineage.lifetime)


def due_by_rule(lineage: Lineage, version: tuple[int, int]) -> float:
    """Return when certbot renews a certificate without an answer of the CA (ARI)."""
    certificate = lineage.certificate
    if lineage.interval:
        seconds_left: float = INTERVALS[lineage.interval]
    elif version < FIRST_VERSION_WITH_A_THIRD:
        seconds_left = 30 * DAY
    elif lineage.lifetime < SHORT_LIFETIME:
        seconds_left = lineage.lifetime / 2
    else:
        seconds_left = lineage.lifetime / 3
    return max(certificate.not_before, certificate.not_after - seconds_left)


def due_at_the_latest(lineage: Lineage, version: tuple[int, int]) -> float:
    """Return when a certificate is overdue (without the grace period) if no renewal was attempted.

    What an administrator expects: the date that he has set, else that of certbot's rule, else the
    end of the CA's window if it is later. But not later than a sixth of the lifetime, or 15 days,
    before the expiry, when something has to be done in any case.
    """
    limit = lineage.certificate.not_after - min(lineage.lifetime / 6, 15 * DAY)
    if not lineage.autorenew:
        return limit
    by_rule = due_by_rule(lineage, version)
    if lineage.interval or version < FIRST_VERSION_WITH_ARI:
        return by_rule
    # Whether the CA has a window is not known to everybody: nothing is due before the end of Let's
    # Encrypt's.
    by_rule += LETS_ENCRYPT_HALF_WINDOW * lineage.lifetime
    window = window_of(lineage, version)
    window_end = window.end if window else 0.0
    return min(max(by_rule, window_end), limit)


def would_renew(lineage: Lineage, version: tuple[int, int], clock: float, ca_is_up: bool) -> bool:
    """Return whether certbot renews a certificate now; `clock`: what the host's clock says.

    Each run draws a moment at random in the CA's window.
    """
    if not lineage.autorenew:
        return False
    window = window_of(lineage, version) if ca_is_up else None
    if window and lineage.random_source.uniform(*window) <= clock:
        return True
    if window and not lineage.interval:
        return False
    return clock >= due_by_rule(lineage, version)
