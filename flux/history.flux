// Every renewal in a range of time, for an auditor: when the certificate began, host, lineage, how many names, which, for how many days it
// lives, and after how many it is due; -1 where the certificate could not be read.
//
// Where the hook writes: its INFLUXDB_BUCKET (on 1.x database, or database/retention_policy).
bucket = "telegraf"

// What the hook writes: its MEASUREMENT.
measurement = "certbot_renewal"

// The range.
since = -400d

renewals = (fields) =>
    from(bucket: bucket)
        |> range(start: since)
        |> filter(fn: (r) => r._measurement == measurement and r.domain == "all")
        |> filter(fn: fields)
        |> filter(fn: (r) => exists r.host and exists r.lineage)
        |> group()

union(
    tables: [
        renewals(fields: (r) => r._field == "renewed_count") |> toString(),
        renewals(fields: (r) => r._field == "lifetime" or r._field == "due_after") |> toString(),
        renewals(fields: (r) => r._field == "names"),
    ],
)
    |> group(columns: ["_time", "host", "lineage"])
    |> reduce(
        identity: {count: 0, lifetime: -1, due_after: -1, names: "unknown"},
        fn: (r, accumulator) =>
            ({
                count:
                    if r._field == "renewed_count" then
                        int(v: float(v: r._value))
                    else
                        accumulator.count,
                lifetime: if r._field == "lifetime" then int(v: r._value) else accumulator.lifetime,
                due_after:
                    if r._field == "due_after" then int(v: r._value) else accumulator.due_after,
                names: if r._field == "names" then r._value else accumulator.names,
            }),
    )
    |> group()
    |> map(
        fn: (r) =>
            ({
                time: r._time,
                host: r.host,
                lineage: r.lineage,
                count: r.count,
                names: r.names,
                lifetime_days: if r.lifetime < 0 then -1.0 else float(v: r.lifetime) / 86400.0,
                due_after_days: if r.due_after < 0 then -1.0 else float(v: r.due_after) / 86400.0,
            }),
    )
    |> sort(columns: ["time", "host", "lineage"])
