// Shows every name, and the days since its last renewal, in windows of a day (UTC): one row per
// name and host, at the time of the query. Use it only for data of the published hook, which
// reports no due dates. For data of this project's hook, use overdue.flux, which has none of the
// limits below. The alert renewal_overdue_domains runs this query.
//
// stateDuration: full days without a renewal. The windows begin at midnight, and the first and the
//     last window are incomplete and do not count. So the number is one or two days less than the
//     age: it is 60 for a name of 61 to 62 days, and 61 for a name of 62 to 63 days.
//
// A name that was removed from its certificate looks overdue until it is older than `since`.
//
// To show only overdue names, add this line at the end:
//     |> filter(fn: (r) => r.stateDuration >= 61)
//
// The bucket, as in INFLUXDB_BUCKET. On InfluxDB 1.x: database, or database/retention_policy.
bucket = "telegraf"

// The measurement, as in MEASUREMENT.
measurement = "certbot_renewal"

// How far back the query looks. Set it to a few days more than the threshold of the alert. With
// more days, a name that was removed from its certificate looks overdue for longer.
since = -65d

from(bucket: bucket)
    |> range(start: since)
    |> filter(fn: (r) => r._measurement == measurement and r._field == "renewed_count")
    |> filter(fn: (r) => r.domain != "all")
    |> aggregateWindow(every: 1d, fn: sum, createEmpty: true)
    |> fill(value: 0.0)
    |> stateDuration(fn: (r) => r._value == 0.0, unit: 1d)
    |> last(column: "stateDuration")
    |> group(columns: ["domain", "host"])
    |> keep(columns: ["_time", "domain", "host", "stateDuration"])
