"""How often things go wrong in a simulated year.

The numbers are guesses from the experience of administrators. They are rather too high.
"""

from __future__ import annotations

from certbot_renewal_report import DAY
from tools.simulation.periods import HOUR, Frequency

# Lifetimes of certificates in seconds, and how many of all certificates have each of them.
LIFETIMES = {90 * DAY: 0.7, 64 * DAY: 0.1, 45 * DAY: 0.12, 160 * HOUR: 0.08}

# From when the CA lets a certificate begin: an hour before its issuance, or midnight.
BACKDATED = {"hour": 0.85, "midnight": 0.15}

# Of all hosts together.
CA_OUTAGE = Frequency(5, HOUR, 36 * HOUR)
INFLUXDB_DOWN = Frequency(14, 10 * 60, 12 * HOUR)
INFLUXDB_AWAY = Frequency(1.0, DAY, 30 * DAY)
KAPACITOR_DOWN = Frequency(25, 60, 6 * HOUR)

# Of each host.
HOST_OFF = Frequency(0.4, 12 * HOUR, 8 * DAY)
# certbot is not started: the package is removed, the timer disabled, cron broken.
TIMER_OFF = Frequency(0.25, 2 * DAY, 45 * DAY)
CLONED_PER_YEAR = 0.03
REBUILT_PER_YEAR = 0.05
RETIRED_PER_YEAR = 0.05
WRONG_CLOCK = 0.1  # of all hosts
LARGEST_CLOCK_ERROR = 300  # seconds
BEHIND_TELEGRAF = 0.3  # of all hosts
CERTBOT_RUNS_HOOKS_AT_ISSUANCE = 0.5  # of all hosts: certbot 5.3 and newer

# Of each lineage.
# Its challenge fails, until somebody repairs it.
LINEAGE_BROKEN = Frequency(0.12, 6 * HOUR, 35 * DAY)
RATE_LIMITED = Frequency(0.05, 2 * HOUR, 7 * DAY)
RENEWED_BY_HAND_PER_YEAR = 0.4
NAMES_CHANGED_BY_HAND = 0.5  # of the renewals by hand
RENEWED_WITHOUT_HOOKS_PER_YEAR = 0.15
DELETED_PER_YEAR = 0.1
REPLACED_AFTER_DELETION = 1.0  # of the deletions: another lineage is created
RENEWAL_ADVANCED = 0.3  # of the certificates: the CA wants them renewed earlier (ARI)
LONGEST_ADVANCE = 10 * DAY

# Of each report.
REPORT_LOST = 0.02  # not sent within the hook's ten seconds, because the network is away
NETWORK_AWAY_SHORTEST = 10
NETWORK_AWAY_LONGEST = 24 * HOUR
REPORT_REPEATED = 0.02  # it arrives twice
LATEST_REPETITION = 6 * HOUR

# What the administrator does.
RUN_REPORT_PATIENCE = 24 * HOUR  # --patience, as docs/run-reports.md has it
DROPPED_AT_REBUILD = 0.3  # of the lineages of a host that is set up again
RETIRED_AT_ONCE = 0.5  # of the hosts that end; the others are retired when the alert fires
