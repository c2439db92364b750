// Shows every certificate that run reports check with VERIFY, and for how many days another
// certificate has been served instead: one row each, at the time of the query. The alert
// certificate_not_served runs this query.
//
// days_unserved:   days from the renewal to the last check that a server answered. -1 if the
//     renewed certificate was served then for all names.
// days_left:       days until the other certificate expires; negative: it has expired. 0 if there
//     is no other certificate.
// renewed, expiry: when the certificate was renewed, and when the other certificate expires.
// not_served:      the names for which the other certificate is served, separated by spaces. If the
//     host is not the name, or the port is not 443, the form is name@host:port. "none" if there is
//     none.
// served:          the number of endpoints at which the last check found the renewed certificate.
// checked:         true if VERIFY covers the certificate. False if the certificate was retired, or
//     if reports came for two days without a check.
//
// The bucket, as in INFLUXDB_BUCKET. On InfluxDB 1.x: database, or database/retention_policy.
bucket = "telegraf"

// The measurement, as in MEASUREMENT.
measurement = "certbot_renewal"

// How far back the query looks for the last report of a certificate. Set it to the longest lifetime
// of your certificates, or longer.
since = -400d

second = 1000000000

// If reports came for this time (two days, in ns) without a check, VERIFY was removed from the
// settings.
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
            reported_at: 0,
            begin: 0,
            due: 0,
            checked_at: 0,
            served: 0,
            seen_at: 0,
            expiry: 0,
            not_served: "none",
        },
        fn: (r, accumulator) =>
            ({
                reported_at:
                    if r._field == "not_before" then int(v: r._time) else accumulator.reported_at,
                begin: if r._field == "not_before" then int(v: r._value) else accumulator.begin,
                due: if r._field == "renewal_due" then int(v: r._value) else accumulator.due,
                checked_at:
                    if r._field == "served" then int(v: r._time) else accumulator.checked_at,
                served: if r._field == "served" then int(v: r._value) else accumulator.served,
                seen_at: if r._field == "not_served" then int(v: r._time) else accumulator.seen_at,
                expiry:
                    if r._field == "served_expiry" then int(v: r._value) else accumulator.expiry,
                not_served: if r._field == "not_served" then r._value else accumulator.not_served,
            }),
    )
    |> filter(fn: (r) => r.checked_at > 0 and r.reported_at > 0)
    |> map(
        fn: (r) =>
            ({r with other:
                    r.due > 0 and r.not_served != "none" and r.checked_at >= r.reported_at
                        -
                        given_up,
            }),
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
                    else if r.seen_at / second < r.begin then
                        0.0
                    else
                        float(v: r.seen_at / second - r.begin) / 86400.0,
                days_left:
                    if r.other then
                        float(v: r.expiry - int(v: now()) / second) / 86400.0
                    else
                        0.0,
                renewed: time(v: r.begin * second),
                expiry: time(v: if r.other then r.expiry * second else 0),
                not_served: if r.other then r.not_served else "none",
                served: r.served,
                checked: r.due > 0 and r.checked_at >= r.reported_at - given_up,
            }),
    )
