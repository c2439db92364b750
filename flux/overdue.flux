// Shows every certificate, and by how many days its renewal is overdue: one row each, at the time
// of the query. The alert renewal_overdue runs this query.
//
// days_overdue: days from the due date to judged_at; negative: the renewal is not yet due. -1 for a
//     retired certificate.
// judged_at:    the time of the last run report of the host, because a lost report is not a missed
//     renewal. On a host without run reports: the time of the query.
// days_left:    days until the certificate expires; negative: it has expired. 0 if it is retired.
// due, expiry:  when the renewal was or is due, and when the certificate expires.
// retired:      true if the certificate is no longer on this host.
//
// If a tag is added or removed, for example by Telegraf, the points form another series. The newest
// report of a certificate counts.
//
// To show only overdue certificates, the worst first and in one table, add this line at the end:
//     |> filter(fn: (r) => r.days_overdue >= 1.0) |> group() |> sort(columns: ["days_overdue"], desc: true)
//
// The bucket, as in INFLUXDB_BUCKET. On InfluxDB 1.x: database, or database/retention_policy.
bucket = "telegraf"

// The measurement, as in MEASUREMENT.
measurement = "certbot_renewal"

// How far back the query looks for the last report of a certificate. Set it to the longest lifetime
// of your certificates, or longer. InfluxDB 1.8 reads all reports of this time, newer versions only
// the last one.
since = -400d

second = 1000000000
last_of = (fields) =>
    from(bucket: bucket)
        |> range(start: since)
        |> filter(fn: (r) => r._measurement == measurement and r.domain == "all")
        |> filter(fn: fields)
        |> last()
        |> filter(fn: (r) => exists r.host and exists r.lineage)
        |> group()
at_due =
    last_of(fields: (r) => r._field == "renewal_due")
        |> sort(columns: ["_time"], desc: true)
        |> map(
            fn: (r) =>
                ({
                    host: r.host,
                    lineage: r.lineage,
                    certificate: r.host + "/" + r.lineage,
                    _time: time(v: r._value * second),
                    due: r._value,
                    expiry: 0,
                    judged: false,
                }),
        )
        |> unique(column: "certificate")
at_evidence =
    last_of(
        fields: (r) => r._field == "renewal_due" or r._field == "not_after" or r._field == "run_at",
    )
        |> pivot(rowKey: ["_time", "host", "lineage"], columnKey: ["_field"], valueColumn: "_value")
        |> filter(fn: (r) => exists r.renewal_due and exists r.not_after and exists r.run_at)
        |> sort(columns: ["_time"], desc: true)
        |> map(
            fn: (r) =>
                ({
                    host: r.host,
                    lineage: r.lineage,
                    certificate: r.host + "/" + r.lineage,
                    _time: if r.run_at > 0 then time(v: r.run_at * second) else now(),
                    due: r.renewal_due,
                    expiry: r.not_after,
                    judged: true,
                }),
        )
        |> unique(column: "certificate")

union(tables: [at_due, at_evidence])
    |> group(columns: ["host", "lineage"])
    |> sort(columns: ["_time"])
    |> stateDuration(fn: (r) => int(v: r._time) >= r.due * second, unit: 1s)
    |> filter(fn: (r) => r.judged)
    |> map(
        fn: (r) =>
            ({
                host: r.host,
                lineage: r.lineage,
                _time: now(),
                days_overdue:
                    if r.due == 0 then
                        -1.0
                    else if r.stateDuration < 0 then
                        float(v: int(v: r._time) / second - r.due) / 86400.0
                    else
                        float(v: r.stateDuration) / 86400.0,
                days_left:
                    if r.due == 0 then
                        0.0
                    else
                        float(v: r.expiry - int(v: now()) / second) / 86400.0,
                due: time(v: r.due * second),
                expiry: time(v: r.expiry * second),
                judged_at: r._time,
                retired: r.due == 0,
            }),
    )
