// Renewals of certificates per day and host, for a graph: days in UTC, also those without a renewal.
//
// Where the hook writes: its INFLUXDB_BUCKET (on 1.x database, or database/retention_policy).
bucket = "telegraf"

// What the hook writes: its MEASUREMENT.
measurement = "certbot_renewal"

// How far back the graph goes.
since = -30d

from(bucket: bucket)
    |> range(start: since)
    |> filter(fn: (r) => r._measurement == measurement and r._field == "renewed_count")
    |> filter(fn: (r) => r.domain == "all")
    |> group(columns: ["host"])
    |> aggregateWindow(every: 1d, fn: count, createEmpty: true)
