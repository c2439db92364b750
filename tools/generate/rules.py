#!/usr/bin/env python3
"""Writes prometheus/rules.yml from tools/generate/rules.yml.in.

    python3 -m tools.generate.rules

PromQL has no names for expressions. The source uses the names of NAMES, in capitals, and the rules
have the expressions. The dashboard for Prometheus uses the same names. What to do when an alert
fires comes from alerts.py.
"""

from __future__ import annotations

import re
import textwrap

from tools import ROOT
from tools.generate.alerts import BY_NAME, MOST_HOSTS

SOURCE = ROOT / "tools" / "generate" / "rules.yml.in"
RULES = ROOT / "prometheus" / "rules.yml"


def last_of_certificate(field: str) -> str:
    """Return PromQL for the last point of a field of certificates' states, of each series.

    Series without a host or a lineage are left out. Other programs wrote them, and vmalert fails
    on all alerts of a rule if it cannot write the text of one of them.
    """
    labels = 'domain="all",host!="",lineage!=""'
    return f"last_over_time(certbot_renewal_{field}{{{labels}}}[400d])"


def last_of_delivery(field: str) -> str:
    """Return PromQL for the last point of a field of deliveries, of each series."""
    labels = 'target!="",host!="",lineage!=""'
    return f"last_over_time(certbot_renewal_{field}{{{labels}}}[400d])"


def last_of_run(field: str) -> str:
    """Return PromQL for the last point of a field of certbot's runs, of each host."""
    return f'max by (host) (last_over_time(certbot_renewal_{field}{{host!=""}}[30d]))'


def threshold(name: str, default: int) -> str:
    """Return PromQL for a threshold in days: as it was recorded last, else its default.

    max: a server may have the threshold twice, with different labels.
    """
    return f"""
        scalar(
          max(last_over_time(certbot_renewal:{name}_days[7d]))
          or vector({default})
        )
    """


def urgent_threshold(expiry: str) -> str:
    """Return PromQL for the days after a renewal from which on it is urgent that it is missing.

    `expiry` is the name of the time at which the old certificate expires. If it expires within
    URGENT_DAYS, the days are GRACE_DAYS * 1; if it has expired, GRACE_DAYS * 0. There is no row if
    it expires later, and none if there is no old certificate (0).
    """
    return f"""
        (
          GRACE_DAYS
          * (
            (
              (
                {expiry}
                > 0
              )
              < (
                time()
                + (
                  URGENT_DAYS
                  * 86400
                )
              )
            )
            >= bool time()
          )
        )
    """


def evidence(latest_run_at: str, without_reports: str) -> str:
    """Return PromQL for the time as of which something is judged.

    With run reports it is the last one of the host, else the current time. `latest_run_at` is the
    name of the latest run_at of each certificate or target, `without_reports` that of run_at where
    it is 0: it is by the clock of the host, which may be wrong, and only tells which of both it is.
    """
    return f"""
        (
          (
            0
            * (
              {latest_run_at}
              > 0
            )
            + on (host) group_left ()
            clamp_max(
              LAST_REPORT,
              time()
            )
          )
          or (
            {without_reports}
            + time()
          )
        )
    """


# All times are Unix seconds. REPORTED_AT is by the clock of the server. RUN_AT, LOOKED_AT and
# SEEN_AT are by the clock of the host: they are compared with each other only.
#
# A name stands for one expression, in parentheses where it needs them: it can be used like a
# metric. Each line has one operator at most, and an operator begins its line.
EXPRESSIONS = {
    # ---- Thresholds, in days. rules.yml.in says what they mean ----
    "CRIT_DAYS": threshold("crit", 1),
    "SILENCE_DAYS": threshold("silence", 2),
    "GRACE_DAYS": threshold("grace", 1),
    "URGENT_DAYS": threshold("urgent", 7),
    # ---- Run reports, by host ----
    # When the last run report arrived, of each series; 0 if it retired the host.
    "REPORTED_AT": 'last_over_time(certbot_renewal_reported_at{host!=""}[400d])',
    # The last run report of each host, of all its series.
    "NEWEST_REPORT": """
        max by (host) (
          REPORTED_AT
        )
    """,
    # The last run report of each host that sends run reports, without retired hosts. The report
    # that retires a host may be in another series, as it may come from another host, with other
    # labels. The subquery finds its day, by the midnight before. If the newest report of the other
    # series came within that day or earlier, the host is retired.
    "LAST_REPORT": """
        (
          (
            NEWEST_REPORT
            > 0
          )
          unless (
            max by (host) (
              max_over_time((
                (
                  last_over_time(certbot_renewal_reported_at{host!=""}[1d] offset -1d)
                  == 0
                )
                + time()
              )[400d:1d])
            )
            > (
              NEWEST_REPORT
              - 86400
            )
          )
        )
    """,
    # ---- Certificates, by host and lineage ----
    # When the run report was made from which the state is; 0 on a host without run reports.
    "RUN_AT": last_of_certificate("run_at"),
    # The start of the certificate, its notBefore; 0 for a retired certificate, as the next two.
    "NOT_BEFORE": last_of_certificate("not_before"),
    # The end of the certificate, its notAfter.
    "NOT_AFTER": last_of_certificate("not_after"),
    # From when on certbot should renew the certificate.
    "RENEWAL_DUE": last_of_certificate("renewal_due"),
    # The same, without retired certificates.
    "DUE": """
        (
          RENEWAL_DUE
          > 0
        )
    """,
    # RUN_AT of the one series of each certificate that was reported last.
    "LATEST_RUN_AT": """
        topk by (host, lineage) (
          1,
          RUN_AT
        )
    """,
    # RUN_AT, 0, of the certificates of hosts without run reports.
    "WITHOUT_REPORTS": """
        (
          RUN_AT
          unless on (host, lineage) (
            RUN_AT
            > 0
          )
        )
    """,
    # RUN_AT of all series of a certificate that were reported last, and of the others. A
    # certificate has several if a label was added: the old series remains, and is never written
    # again. Without run reports all were reported last, with 0.
    "NEWEST": """
        (
          RUN_AT
          >= on (host, lineage) group_left ()
          max by (host, lineage) (
            RUN_AT
          )
        )
    """,
    "OUTDATED": """
        (
          RUN_AT
          < on (host, lineage) group_left ()
          max by (host, lineage) (
            RUN_AT
          )
        )
    """,
    # The time as of which a certificate is judged.
    "EVIDENCE": evidence("LATEST_RUN_AT", "WITHOUT_REPORTS"),
    # Days from the due date to the evidence, below 0 if the certificate is not yet due; by
    # certificate. Of several series the one that is due last counts.
    "DAYS_OVERDUE": """
        min by (host, lineage) (
          (
            EVIDENCE
            - DUE
          )
          / 86400
        )
    """,
    # Half of the days from the due date to the expiry; 0 if a certificate expires before.
    "HALF_OF_THE_REST": """
        clamp_min(
          (
            NOT_AFTER
            - DUE
          )
          / 2
          / 86400,
          0
        )
    """,
    # The days after the due date from which on a certificate is overdue: CRIT_DAYS, or
    # HALF_OF_THE_REST if that is less.
    "DAYS_TO_CRITICAL": """
        min by (host, lineage) (
          clamp_max(
            HALF_OF_THE_REST,
            CRIT_DAYS
          )
        )
    """,
    # ---- Runs of certbot, by host ----
    # Series of a host that were reported before another of its series.
    "OUTDATED_RUNS": """
        (
          REPORTED_AT
          < on (host) group_left ()
          NEWEST_REPORT
        )
    """,
    # How many lineages the last run attempted to renew, and could not.
    "FAILED_COUNT": last_of_run("failed_count"),
    # How many lineages certbot could not read.
    "UNREADABLE_COUNT": last_of_run("unreadable_count"),
    # certbot's exit status; -1: not known.
    "EXIT_STATUS": last_of_run("exit_status"),
    # The step of the incident, of each host where certbot fails: 1 at the beginning, and one more
    # each time that more lineages fail than before.
    "FAILING": """
        max by (host) (
          (
            last_over_time(certbot_renewal_failing{host!=""}[30d])
            unless OUTDATED_RUNS
          )
          > 0
        )
    """,
    # ---- Silent hosts ----
    # Days since the last run report, of hosts that are silent.
    "DAYS_SILENT": """
        (
          (
            (
              time()
              - LAST_REPORT
            )
            / 86400
          )
          >= SILENCE_DAYS
        )
    """,
    # Seconds between two run reports, of each host whose reports are on time: the first report
    # within a day (half of the silence) came at most 1.1 days (0.55 * silence) after the report
    # before that day.
    "ON_TIME": """
        (
          (
            min by (host) (
              min_over_time(certbot_renewal_reported_at{host!=""}[1d])
              > 0
            )
            - max by (host) (
              last_over_time(certbot_renewal_reported_at{host!=""}[400d] offset 1d)
              > 0
            )
          )
          <= (
            0.55
            * SILENCE_DAYS
            * 86400
          )
        )
    """,
    # A row (the number of hosts) if most hosts do not report on time: there are more than two
    # hosts, and more than twice as many as report on time. Then the reports were not stored for a
    # while, and a host that is silent may not have had the time to report again.
    "MOST_HOSTS_AWAY": """
        (
          count(
            LAST_REPORT
          )
          > clamp_min(
            2
            * (
              count(
                ON_TIME
              )
              or vector(0)
            ),
            2
          )
        )
    """,
    # Days since the last run report, with the host "(most hosts)": a row if there are more than two
    # hosts, and more than half of them are silent. The silent host that reported last counts.
    "MOST_HOSTS": """
        label_replace(
          min(
            DAYS_SILENT
          )
          and (
            (
              count(
                LAST_REPORT
              )
              < (
                2
                * count(
                  DAYS_SILENT
                )
              )
            )
            > 2
          ),
          "host", "(most hosts)", "", ""
        )
    """,
    # The series that Prometheus and vmalert write while the alert fires.
    "FIRING": 'ALERTS{alertname="host_silent", alertstate="firing"}',
    # Days since the alert fired last, by host: 0 if it did within a day, else up to 60 days, to
    # five minutes. 0 is less than the silence. The subquery alone would not see the last five
    # minutes. vmalert 1.79 keeps no ALERTS_FOR_STATE of an alert without `for`.
    "DAYS_SINCE_FIRED": """
        (
          (
            0
            * max by (host) (last_over_time(FIRING[1d]))
          )
          or (
            (
              time()
              - max by (host) (
                max_over_time(timestamp(FIRING)[60d:5m])
              )
            )
            / 86400
          )
        )
    """,
    # ---- Deliveries, by host, lineage and target ----
    # When the run report was made; 0 on a host without run reports.
    "DELIVERY_RUN_AT": last_of_delivery("run_at"),
    # The same, of the one series of each target that was reported last.
    "LATEST_DELIVERY": """
        topk by (host, lineage, target) (
          1,
          DELIVERY_RUN_AT
        )
    """,
    # The same, 0, of the targets on hosts without run reports.
    "DELIVERY_WITHOUT_REPORTS": """
        (
          LATEST_DELIVERY
          == 0
        )
    """,
    # The time as of which a delivery is judged.
    "DELIVERY_EVIDENCE": evidence("LATEST_DELIVERY", "DELIVERY_WITHOUT_REPORTS"),
    # The start of the certificate that the target should have; 0 if it should have none any more.
    "RENEWED": last_of_delivery("renewed"),
    # The start and the end of the certificate that the target has; 0 if it never got one.
    "DEPLOYED": last_of_delivery("deployed"),
    "DEPLOYED_EXPIRY": last_of_delivery("deployed_expiry"),
    # Days from the renewal to the evidence, of each target that has an older certificate; not of
    # retired certificates.
    "DAYS_MISSING": """
        (
          (
            (
              DELIVERY_EVIDENCE
              - (
                RENEWED
                > DEPLOYED
              )
            )
            / 86400
          )
          and on (host, lineage) DUE
        )
    """,
    # Days after the renewal from which on a missing delivery is urgent.
    "URGENT_MISSING_DAYS": urgent_threshold("DEPLOYED_EXPIRY"),
    # ---- Served certificates, by host and lineage ----
    # When run reports last looked what is served, and when a server last answered.
    "LOOKED_AT": last_of_certificate("looked_at"),
    "SEEN_AT": last_of_certificate("seen_at"),
    # When the other certificate expires that was served then; 0 if the right one was served.
    "SERVED_EXPIRY": last_of_certificate("served_expiry"),
    # When a server last answered, by the clock of the server that stores the reports: so long
    # before the last run report.
    "LAST_SEEN": """
        (
          (
            SEEN_AT
            - LATEST_RUN_AT
          )
          + on (host) group_left ()
          LAST_REPORT
        )
    """,
    # Days from the renewal to the last look that a server answered, of each certificate in place of
    # which another one was served. Not if reports came for two days without a look: then VERIFY was
    # removed from the settings. Not of retired certificates.
    "DAYS_UNSERVED": """
        (
          (
            clamp_min(
              LAST_SEEN
              - NOT_BEFORE,
              0
            )
            / 86400
          )
          and (
            LOOKED_AT
            >= (
              LATEST_RUN_AT
              - (
                2
                * 86400
              )
            )
          )
          and DUE
          and (
            SERVED_EXPIRY
            > 0
          )
        )
    """,
    # Days after the renewal from which on another certificate is urgent.
    "URGENT_UNSERVED_DAYS": urgent_threshold("SERVED_EXPIRY"),
    # ---- Dry runs ----
    # The certificates whose last dry run within 30 days failed, by host and lineage. Not of retired
    # certificates.
    "FAILED_DRY_RUN": """
        max by (host, lineage) (
          (
            last_over_time(certbot_renewal_dry_run_failed{domain="all",host!="",lineage!=""}[30d])
            > 0
          )
          unless OUTDATED
          unless (
            RENEWAL_DUE
            == 0
          )
        )
    """,
}
NAMES = {name: textwrap.dedent(promql).strip() for name, promql in EXPRESSIONS.items()}
NAME = re.compile(rf"\b(?:{'|'.join(NAMES)})\b")

# The templates of Prometheus for the labels of an alert. Names of certificates are not stored.
LABELS = {
    "HOST": "{{ $labels.host }}",
    "LINEAGE": "{{ $labels.lineage }}",
    "TARGET": "{{ $labels.target }}",
    "NAMES": "NAME...",
}

# Matches a line that stands for the instructions of an alert: INSTRUCTIONS renewal_overdue
INSTRUCTIONS = re.compile(r"^(?P<indentation> +)INSTRUCTIONS (?P<alert>\w+)$", re.MULTILINE)


def expand(text: str) -> str:
    """Return a text with the expressions in the place of their names.

    The further lines of an expression are indented as the line in which its name stands.
    """
    return "".join(expand_line(line) for line in text.splitlines(keepends=True))


def expand_line(line: str) -> str:
    """Return a line with the expressions in the place of their names."""
    indentation = line[: len(line) - len(line.lstrip())]

    def expression(match: re.Match[str]) -> str:
        return expand(NAMES[match[0]]).replace("\n", f"\n{indentation}")

    return NAME.sub(expression, line)


def instructions(match: re.Match[str]) -> str:
    """Return the instructions of an alert, indented as the line that stands for them."""
    if match["alert"] == "most_hosts":
        text = MOST_HOSTS.text(LABELS)
    else:
        text = BY_NAME[match["alert"]].instructions.text(LABELS)
    return textwrap.indent(text, match["indentation"])


def rules() -> str:
    """Return the text of prometheus/rules.yml.

    The first paragraph of the source is about the source itself, and is left out.
    """
    _, _, text = SOURCE.read_text().partition("\n\n")
    return INSTRUCTIONS.sub(instructions, expand(text))


if __name__ == "__main__":
    RULES.write_text(rules())
