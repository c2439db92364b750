// For data of the published hook, which writes no state: the days since each name was last renewed, as it counts them, in windows of
// a day (UTC). One row per name and host, at the time of the query. The alert renewal_overdue_domains runs exactly this.
//
// The fence-post: the windows begin at midnight, the first and the last are cut off, and the count begins with the first window without
// a renewal. stateDuration is therefore a day or two less than the age: it reaches 60 when a name is 61 to 62 days old, 61 at 62 to
// 63 days. A name that is no longer in any certificate looks overdue until `since` is over, then it is gone. With this project's hook, use
// overdue.flux: it has none of this.
//
// For a dashboard, only what is overdue: add at the end
//     |> filter(fn: (r) => r.stateDuration >= 61)
//
// Where the hook writes: its INFLUXDB_BUCKET (on 1.x database, or database/retention_policy).
bucket = "telegraf"

// What the hook writes: its MEASUREMENT.
measurement = "certbot_renewal"

// How far back to look: some days more than the threshold, and no more, or names that are gone alert for longer.
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
