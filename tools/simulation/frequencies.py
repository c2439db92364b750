"""How often things go wrong in a simulated year.

The numbers are guesses from the experience of administrators. They are rather too high.
"""

from __future__ import annotations

from certbot_renewal_report import DAY
from tools.simulation.periods import HOUR, Frequency

# Lifetimes of certificates in seconds, and how many of all certificates have each of them.
LIFETIMES = {
    90 * DAY: 0.64,
    64 * DAY: 0.1,
    45 * DAY: 0.12,
    160 * HOUR: 0.08,
    180 * DAY: 0.03,
    365 * DAY: 0.03,
}
# On these hosts, of all hosts, certificates of 24 hours. certbot's timer starts every two hours.
DAY_CERTIFICATES = 0.02
SHORT_LIFETIME = 10 * DAY

# What certbot has of the CA (ARI, RFC 9773): the part of the lifetime after which the window for
# the renewal begins and ends. Let's Encrypt's is for lifetimes of ten days and more; for shorter
# ones it is half of the lifetime.
LETS_ENCRYPT = "letsencrypt"
LETS_ENCRYPT_HALF_WINDOW = 0.01  # of the lifetime
WINDOWS = {"early": (0.45, 0.6), "wide": (0.55, 0.8), "late": (0.78, 0.9)}
# The CAs, and how many of all certificates each has issued. "no ARI" has no window.
CAS = {LETS_ENCRYPT: 0.8, "no ARI": 0.1, "early": 0.03, "wide": 0.05, "late": 0.02}
# Of each CA: it has to revoke certificates, and moves their windows into the past.
REVOCATIONS_PER_YEAR = 0.3
REVOKED = 0.3  # of the certificates that it has issued

# certbot's versions, and how many of all hosts have each of them.
CERTBOT_VERSIONS = {"2.9.0": 0.25, "4.0.0": 0.1, "5.8.0": 0.65}

# renew_before_expiry, as administrators write it, and in seconds.
INTERVALS = {
    "30 days": 30 * DAY,
    "two weeks": 14 * DAY,
    "10 days and 6 hours": 10 * DAY + 6 * HOUR,
    "a week": 7 * DAY,
    "3 days": 3 * DAY,
    "8 hours": 8 * HOUR,
}
HAS_INTERVAL = 0.05  # of the lineages
SHORTEST_INTERVAL = 1 / 20  # of the lifetime
LONGEST_INTERVAL = 0.8
# Of the lineages: autorenew = False. The administrator renews them by hand, in this part of their
# lifetime.
NOT_RENEWED_BY_CERTBOT = 0.01
RENEWED_BY_HAND_BETWEEN = (0.6, 1.02)

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
# How wrong clocks are at most, in seconds, and how many of all hosts have such a clock.
WRONG_CLOCKS = {300: 0.1, 12 * HOUR: 0.03, 28 * DAY: 0.02}
LOG_MISSING = 0.05  # of all hosts: certbot's log cannot be read
# certbot cannot look for due certificates: a plugin is broken, there is no network.
WHOLE_RUN_FAILS = Frequency(0.1, 6 * HOUR, 5 * DAY)
ALREADY_RUNNING = 0.002  # of the runs: another certbot is running
# The folder of the lineages is a mount that is missing.
UNMOUNTED = Frequency(0.06, 6 * HOUR, 10 * DAY)
SHARED = 0.01  # of all hosts: another host has the same configuration folder, and runs certbot, too
BEHIND_TELEGRAF = 0.3  # of all hosts

# Of each lineage.
# Its challenge fails, until somebody repairs it.
LINEAGE_BROKEN = Frequency(0.12, 6 * HOUR, 35 * DAY)
RATE_LIMITED = Frequency(0.05, 2 * HOUR, 7 * DAY)
RENEWED_BY_HAND_PER_YEAR = 0.4
NAMES_CHANGED_BY_HAND = 0.5  # of the renewals by hand
RENEWED_WITHOUT_HOOKS_PER_YEAR = 0.15
# certbot cannot read it: a link became a file, a key is missing.
UNREADABLE = Frequency(0.03, DAY, 30 * DAY)
FILES_DELETED = Frequency(0.02, DAY, 30 * DAY)  # and its files are gone
CONFIGURATION_LOST = Frequency(0.02, DAY, 30 * DAY)  # its renewal configuration is gone
# The administrator renames its renewal configuration, and later back.
SWITCHED_OFF = Frequency(0.03, DAY, 60 * DAY)
DELETED_PER_YEAR = 0.1
REPLACED_AFTER_DELETION = 1.0  # of the deletions: another lineage is created

# Of each report.
REPORT_LOST = 0.02  # while the network was there before: it goes away for a time, with all reports
NETWORK_AWAY_SHORTEST = 10
NETWORK_AWAY_LONGEST = 24 * HOUR
# It arrives twice: a proxy repeats the request, or Telegraf sends what it has dated already.
REPORT_REPEATED = 0.02
LATEST_REPETITION = 60
LATEST_REPETITION_BY_TELEGRAF = 6 * HOUR

# What the administrator does.
RUN_REPORT_PATIENCE = 24 * HOUR  # --patience, as docs/run-reports.md has it
DROPPED_AT_REBUILD = 0.3  # of the lineages of a host that is set up again
RETIRED_AT_ONCE = 0.5  # of the hosts that end; the others are retired when the alert fires
