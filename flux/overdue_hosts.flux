// Every host, and which of its certificates are overdue: one row each. For fleets where one mail for each certificate would be too many.
// The alert renewal_overdue_hosts runs exactly this. What overdue means, and the evidence, is said in overdue.flux.
//
// overdue:   how many of its certificates are overdue by `crit` days or more.
// lineages:  which, the newest first, that is the one that was due last.
// oldest:    since when the first of them was due.
// days_left: until the first of them expires.
// _time:     since when the last of them was due; without any, the time of the query. It grows when one more is overdue, and not when one
//     is renewed: so the alert tells of each certificate once. (One that was due before the newest, and is known of only after it, as with
//     two installations under one host tag, adds to the next mail.)
//
// Where the hook writes: its INFLUXDB_BUCKET (on 1.x database, or database/retention_policy).
bucket = "telegraf"

// What the hook writes: its MEASUREMENT.
measurement = "certbot_renewal"

// Days after certbot should have renewed.
crit = 1.0

// How far back to look for the last report of a certificate. At least as far as the longest lifetime among your certificates.
// InfluxDB 1.8 reads all of it, newer ones only the last.
since = -400d

second = 1000000000

from(bucket: bucket)
    |> range(start: since)
    |> filter(fn: (r) => r._measurement == measurement and r.domain == "all")
    |> filter(
        fn: (r) => r._field == "renewal_due" or r._field == "not_after" or r._field == "run_at",
    )
    |> last()
    |> filter(fn: (r) => exists r.host and exists r.lineage)
    |> group()
    |> pivot(rowKey: ["_time", "host", "lineage"], columnKey: ["_field"], valueColumn: "_value")
    |> filter(fn: (r) => exists r.renewal_due and exists r.not_after and exists r.run_at)
    |> sort(columns: ["_time"], desc: true)
    |> map(
        fn: (r) =>
            ({
                host: r.host,
                lineage: r.lineage,
                certificate: r.host + "/" + r.lineage,
                due: r.renewal_due,
                expiry: r.not_after,
                evidence: if r.run_at > 0 then r.run_at else int(v: now()) / second,
            }),
    )
    |> unique(column: "certificate")
    |> map(
        fn: (r) =>
            ({
                host: r.host,
                lineage: r.lineage,
                due: r.due,
                expiry: r.expiry,
                late: r.due > 0 and float(v: r.evidence - r.due) / 86400.0 >= float(v: crit),
            }),
    )
    |> group(columns: ["host"])
    |> sort(columns: ["due", "lineage"], desc: true)
    |> reduce(
        identity: {
            overdue: 0,
            lineages: "none",
            newest: 0,
            oldest: 0,
            expiry: 0,
        },
        fn: (r, accumulator) =>
            ({
                overdue: if r.late then accumulator.overdue + 1 else accumulator.overdue,
                lineages:
                    if not r.late then
                        accumulator.lineages
                    else if accumulator.overdue == 0 then
                        r.lineage
                    else
                        accumulator.lineages + " " + r.lineage,
                newest: if r.late and accumulator.overdue == 0 then r.due else accumulator.newest,
                oldest: if r.late then r.due else accumulator.oldest,
                expiry:
                    if r.late and (accumulator.overdue == 0 or r.expiry < accumulator.expiry) then
                        r.expiry
                    else
                        accumulator.expiry,
            }),
    )
    |> map(
        fn: (r) =>
            ({
                host: r.host,
                _time: if r.overdue > 0 then time(v: r.newest * second) else now(),
                overdue: r.overdue,
                lineages: r.lineages,
                oldest: time(v: r.oldest * second),
                expiry: time(v: r.expiry * second),
                days_left:
                    if r.overdue > 0 then
                        float(v: r.expiry - int(v: now()) / second) / 86400.0
                    else
                        0.0,
            }),
    )
