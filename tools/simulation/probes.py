"""Probes: what people use today. A probe looks at each certificate as it is served.

It alerts from a moment in the certificate's life on, the same for all certificates. It asks no
database, and it is simulated without one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import certbot_renewal_report as hook
from certbot_renewal_report import DAY
from tools.simulation.alerts import PROBE, Notification, Subject
from tools.simulation.periods import BEGIN, EVALUATION_INTERVAL, Periods
from tools.simulation.truth import Holding, Truth

AlertFrom = Callable[[hook.Certificate], float]


def days_before_expiry(days: int) -> AlertFrom:
    """Return a probe that alerts this many days before a certificate expires."""
    return lambda certificate: certificate.not_after - days * DAY


def two_thirds_and_three_days(certificate: hook.Certificate) -> float:
    """Return when two thirds of the lifetime, and three days, are over."""
    lifetime = certificate.not_after - certificate.not_before
    return certificate.not_before + lifetime * 2 / 3 + 3 * DAY


# By name: from when a probe alerts, as a function of the certificate.
PROBES: dict[str, AlertFrom] = {
    "21 days before expiry": days_before_expiry(21),
    "14 days before expiry": days_before_expiry(14),
    "7 days before expiry": days_before_expiry(7),
    "2/3 of the lifetime + 3 days": two_thirds_and_three_days,
}


def probe_notifications(
    truth: Truth, hosts_off: Mapping[str, Periods], alert_from: AlertFrom
) -> list[Notification]:
    """Return the notifications of a probe in the year; `hosts_off`: by host tag.

    It looks at every certificate every fifteen minutes. A host that is off does not answer, and the
    probe does not alert because of that. A lineage that is deleted is not looked at any more.
    """
    notifications = []
    for subject, holdings in truth.holdings.items():
        off = hosts_off[subject.host]
        notifications += notifications_of(subject, holdings, truth.end, off, alert_from)
    return notifications


def notifications_of(
    subject: Subject, holdings: list[Holding], year_end: float, off: Periods, alert_from: AlertFrom
) -> list[Notification]:
    """Return a probe's notifications about a lineage."""
    notifications = []
    is_firing = False
    for holding, successor in itertools.pairwise([*holdings, Holding(year_end, None)]):
        fires_from = year_end
        if holding.certificate is not None:
            fires_from = max(holding.since, alert_from(holding.certificate))

        if is_firing and fires_from > holding.since:
            is_firing = False
            at = next_look(holding.since)
            notifications.append(Notification(at, PROBE, subject, False, holding.since))
        at = next_look_while_on(fires_from, off)
        if not is_firing and at < successor.since:
            is_firing = True
            notifications.append(Notification(at, PROBE, subject, True, at))
    return notifications


def next_look(moment: float) -> int:
    """Return when a probe looks next after a moment."""
    looks = int(max(moment - BEGIN, 0) // EVALUATION_INTERVAL)
    return BEGIN + (looks + 1) * EVALUATION_INTERVAL


def next_look_while_on(moment: float, off: Periods) -> int:
    """Return when a probe looks next, after a moment, at a host that is on."""
    at = next_look(moment)
    while off.contains(at):
        at = next_look(off.end_at(at))
    return at
