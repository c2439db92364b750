// Shows every host, and which of its certificates are overdue: one row each. Use it for a fleet that
// needs one notification for each host, not for each certificate. overdue.flux explains when a
// certificate is overdue. The alert renewal_overdue_hosts runs this query.
//
// overdue:   the number of certificates that are overdue by `crit` days or more, or by half of the
//     time between due date and expiry.
// lineages:  these certificates, separated by spaces. The one with the latest due date comes first.
// oldest:    the earliest due date of these certificates.
// failure:   why certbot does not renew the one with the earliest due date, in certbot's words;
//     "none".
// expiry:    when the first of these certificates expires.
// days_left: days until then; negative: it has expired. 0 if no certificate is overdue.
// _time:     the latest due date of these certificates; if there are none, the time of the query.
//     It increases when another certificate becomes overdue, but not when one is renewed. So the
//     alert notifies once about each certificate. There is one exception: a certificate that was
//     due earlier, but is reported later, is only in the next notification.
//
// The bucket, as in INFLUXDB_BUCKET. On InfluxDB 1.x: database, or database/retention_policy.
bucket = "telegraf"

// The measurement, as in MEASUREMENT.
measurement = "certbot_renewal"

// A certificate is overdue this many days after its due date, or after half of the time between due
// date and expiry, whichever is less.
crit = 1.0

// How far back the query looks for the last report of a certificate. Set it to the longest lifetime
// of your certificates, or longer. InfluxDB 1.8 reads all reports of this time, newer versions only
// the last one.
since = -400d

second = 1000000000

last_of = (fields) =>
    from(bucket: bucket)
        |> range(start: since)
        |> filter(
            fn: (r) =>
                r._measurement == measurement and r.domain == "all" and r.host != "" and r.lineage
                    !=
                    "",
        )
        |> filter(fn: fields)
        |> last()
        |> group()

union(
    tables: [
        last_of(
            fields: (r) =>
                r._field == "renewal_due" or r._field == "not_after" or r._field == "run_at",
        )
            |> toString(),
        last_of(fields: (r) => r._field == "failure"),
    ],
)
    |> pivot(rowKey: ["_time", "host", "lineage"], columnKey: ["_field"], valueColumn: "_value")
    |> filter(
        fn: (r) =>
            exists r.renewal_due and exists r.not_after and exists r.run_at and exists r.failure,
    )
    |> sort(columns: ["_time"], desc: true)
    |> map(fn: (r) => ({r with certificate: r.host + "/" + r.lineage}))
    |> unique(column: "certificate")
    |> map(
        fn: (r) =>
            ({
                host: r.host,
                lineage: r.lineage,
                due: int(v: r.renewal_due),
                expiry: int(v: r.not_after),
                failure: r.failure,
                seconds_overdue:
                    if int(v: r.run_at) > 0 then
                        int(v: r._time) / second - int(v: r.renewal_due)
                    else
                        int(v: now()) / second - int(v: r.renewal_due),
            }),
    )
    |> map(
        fn: (r) =>
            ({
                host: r.host,
                lineage: r.lineage,
                due: r.due,
                expiry: r.expiry,
                failure: r.failure,
                late:
                    r.due > 0 and r.seconds_overdue >= 0 and (float(v: r.seconds_overdue) / 86400.0
                            >=
                            float(v: crit) or r.seconds_overdue * 2 >= r.expiry - r.due),
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
            failure: "none",
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
                failure: if r.late then r.failure else accumulator.failure,
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
                failure: r.failure,
                expiry: time(v: r.expiry * second),
                days_left:
                    if r.overdue > 0 then
                        float(v: r.expiry - int(v: now()) / second) / 86400.0
                    else
                        0.0,
            }),
    )
