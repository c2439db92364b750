// All certificates at a glance: host, lineage, age in days, when the next renewal is due, when it expires; the oldest first.
//
// Where the hook writes: its INFLUXDB_BUCKET (on 1.x database, or database/retention_policy).
bucket = "telegraf"

// What the hook writes: its MEASUREMENT.
measurement = "certbot_renewal"

// How far back to look for the last report of a certificate. At least as far as the longest lifetime among your certificates.
// InfluxDB 1.8 reads all of it, newer ones only the last.
since = -400d

second = 1000000000

from(bucket: bucket)
    |> range(start: since)
    |> filter(fn: (r) => r._measurement == measurement and r.domain == "all")
    |> filter(
        fn: (r) => r._field == "not_before" or r._field == "renewal_due" or r._field == "not_after",
    )
    |> last()
    |> filter(fn: (r) => exists r.host and exists r.lineage)
    |> group()
    |> pivot(rowKey: ["_time", "host", "lineage"], columnKey: ["_field"], valueColumn: "_value")
    |> filter(fn: (r) => exists r.not_before and exists r.renewal_due and exists r.not_after)
    |> sort(columns: ["_time"], desc: true)
    |> map(fn: (r) => ({r with certificate: r.host + "/" + r.lineage}))
    |> unique(column: "certificate")
    |> filter(fn: (r) => r.not_after > 0)
    |> map(
        fn: (r) =>
            ({
                host: r.host,
                lineage: r.lineage,
                age_days: float(v: int(v: now()) / second - r.not_before) / 86400.0,
                next_renewal: time(v: r.renewal_due * second),
                expiry: time(v: r.not_after * second),
            }),
    )
    |> sort(columns: ["age_days"], desc: true)
