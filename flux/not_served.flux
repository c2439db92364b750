// Every certificate that run reports look for with VERIFY, and for how many days another one has been served instead: one row each, at
// the time of the query.
// The alert certificate_not_served runs exactly this.
//
// days_unserved: from the renewal until the last look that somebody answered, while another one was served then for any name; else -1.
// days_left:     until that other one expires; negative: it has expired. 0 where there is none.
// not_served:    the names that it is served for, with host and port where they are not the name itself and 443.
// served:        at how many places the right one was served at the last look.
// looked:        whether VERIFY is still about it. It is not where the certificate ended, or reports came for two days without a look.
//
// Where the hook writes: its INFLUXDB_BUCKET (on 1.x database, or database/retention_policy).
bucket = "telegraf"

// What the hook writes: its MEASUREMENT.
measurement = "certbot_renewal"

// How far back to look for the last report of a certificate. At least as far as the longest lifetime among your certificates.
since = -400d

second = 1000000000

// A report that came so much later than the last look says that VERIFY was taken out of the settings: two days, in ns.
given_up = 172800000000000

last_of = (fields) =>
    from(bucket: bucket)
        |> range(start: since)
        |> filter(fn: (r) => r._measurement == measurement and r.domain == "all")
        |> filter(fn: fields)
        |> last()
        |> filter(fn: (r) => exists r.host and exists r.lineage)
        |> group()
numbers =
    last_of(
        fields: (r) =>
            r._field == "not_before" or r._field == "renewal_due" or r._field == "served"
                or
                r._field == "served_expiry",
    )
names = last_of(fields: (r) => r._field == "not_served")

union(tables: [numbers |> toString(), names])
    |> group(columns: ["host", "lineage"])
    |> sort(columns: ["_time"])
    |> reduce(
        identity: {
            at: 0,
            begin: 0,
            due: 0,
            looked: 0,
            served: 0,
            seen: 0,
            expiry: 0,
            not_served: "none",
        },
        fn: (r, accumulator) =>
            ({
                at: if r._field == "not_before" then int(v: r._time) else accumulator.at,
                begin: if r._field == "not_before" then int(v: r._value) else accumulator.begin,
                due: if r._field == "renewal_due" then int(v: r._value) else accumulator.due,
                looked: if r._field == "served" then int(v: r._time) else accumulator.looked,
                served: if r._field == "served" then int(v: r._value) else accumulator.served,
                seen: if r._field == "not_served" then int(v: r._time) else accumulator.seen,
                expiry:
                    if r._field == "served_expiry" then int(v: r._value) else accumulator.expiry,
                not_served: if r._field == "not_served" then r._value else accumulator.not_served,
            }),
    )
    |> filter(fn: (r) => r.looked > 0 and r.at > 0)
    |> map(
        fn: (r) =>
            ({r with other: r.due > 0 and r.not_served != "none" and r.looked >= r.at - given_up}),
    )
    |> map(
        fn: (r) =>
            ({
                host: r.host,
                lineage: r.lineage,
                _time: now(),
                days_unserved:
                    if not r.other then
                        -1.0
                    else if r.seen / second < r.begin then
                        0.0
                    else
                        float(v: r.seen / second - r.begin) / 86400.0,
                days_left:
                    if r.other then
                        float(v: r.expiry - int(v: now()) / second) / 86400.0
                    else
                        0.0,
                renewed: time(v: r.begin * second),
                expiry: time(v: if r.other then r.expiry * second else 0),
                not_served: if r.other then r.not_served else "none",
                served: r.served,
                looked: r.due > 0 and r.looked >= r.at - given_up,
            }),
    )
