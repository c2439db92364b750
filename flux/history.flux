// Every renewal in a range of time, for an auditor: when the certificate began, host, lineage, how many names, which, for how many days it
// lives, and after how many it is due; both are 0 where the certificate could not be read.
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
    |> pivot(rowKey: ["_time", "host", "lineage"], columnKey: ["_field"], valueColumn: "_value")
    |> filter(
        fn: (r) =>
            exists r.renewed_count and exists r.lifetime and exists r.due_after and exists r.names,
    )
    |> map(
        fn: (r) =>
            ({
                time: r._time,
                host: r.host,
                lineage: r.lineage,
                count: int(v: float(v: r.renewed_count)),
                names: r.names,
                lifetime_days: float(v: r.lifetime) / 86400.0,
                due_after_days: float(v: r.due_after) / 86400.0,
            }),
    )
    |> sort(columns: ["time", "host", "lineage"])
