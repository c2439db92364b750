// Every certificate, and by how many days its renewal is overdue: one row each, at the time of the query.
// The alert renewal_overdue runs exactly this.
//
// days_overdue: since the renewal was due; negative: until it is. Judged at the evidence, the last moment known of: on a host that
//     sends run reports the last of them (a report lost is no renewal missed), elsewhere now.
// days_left:    until the certificate expires.
// ended:        the certificate is no longer on this host. Its days_overdue is -1, so that an alert recovers.
//
// A tag more or less, as when Telegraf begins to add one, makes another series: the newest report of a certificate counts.
//
// For a dashboard, only what is overdue, in one table, the worst first: add at the end
//     |> filter(fn: (r) => r.days_overdue >= 1.0) |> group() |> sort(columns: ["days_overdue"], desc: true)
//
// Where the hook writes: its INFLUXDB_BUCKET (on 1.x database, or database/retention_policy).
bucket = "telegraf"

// What the hook writes: its MEASUREMENT.
measurement = "certbot_renewal"

// How far back to look for the last report of a certificate. At least as far as the longest lifetime among your certificates.
// InfluxDB 1.8 reads all of it, newer ones only the last.
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
                ended: r.due == 0,
            }),
    )
