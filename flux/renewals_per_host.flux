// Shows the renewals of certificates per day (UTC) and host, for a graph. Days without a renewal
// are 0.
//
// The bucket, as in INFLUXDB_BUCKET. On InfluxDB 1.x: database, or database/retention_policy.
bucket = "telegraf"

// The measurement, as in MEASUREMENT.
measurement = "certbot_renewal"

// How far back the graph goes.
since = -30d

from(bucket: bucket)
    |> range(start: since)
    |> filter(fn: (r) => r._measurement == measurement and r._field == "renewed_count")
    |> filter(fn: (r) => r.domain == "all")
    |> group(columns: ["host"])
    |> aggregateWindow(every: 1d, fn: count, createEmpty: true)
