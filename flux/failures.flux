// Every run of certbot in a range of time that left something not renewed, or a certificate unreadable: when, on which host, and what; the
// newest first. For an auditor, and for who asks what failed before it was well again.
//
// failed, unreadable: lineages, parted by spaces; "none".
//
// Where the hook writes: its INFLUXDB_BUCKET (on 1.x database, or database/retention_policy).
bucket = "telegraf"

// What the hook writes: its MEASUREMENT.
measurement = "certbot_renewal"

// The range.
since = -400d

from(bucket: bucket)
    |> range(start: since)
    |> filter(fn: (r) => r._measurement == measurement)
    |> filter(fn: (r) => r._field == "failed" or r._field == "unreadable")
    |> filter(fn: (r) => exists r.host)
    |> group()
    |> map(
        fn: (r) =>
            ({
                time: r._time,
                host: r.host,
                failed: if r._field == "failed" then r._value else "none",
                unreadable: if r._field == "unreadable" then r._value else "none",
            }),
    )
    |> sort(columns: ["time", "host"], desc: true)
