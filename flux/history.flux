// Shows every renewal in a time range, the oldest first. Use it as a record for audits.
//
// time:           when the certificate began (its notBefore).
// count, names:   how many names the certificate has, and which.
// lifetime_days:  its lifetime.
// due_after_days: days from its start until the next renewal is due. This and lifetime_days are 0
//     if the certificate could not be read.
//
// The bucket, as in INFLUXDB_BUCKET. On InfluxDB 1.x: database, or database/retention_policy.
bucket = "telegraf"

// The measurement, as in MEASUREMENT.
measurement = "certbot_renewal"

// How far back the query looks.
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
