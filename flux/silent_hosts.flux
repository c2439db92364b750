// Shows every host that sent run reports, and the days since the last one: one row each, at the time
// of the query. The alert host_silent runs this query.
//
// last_report:     when the last run report arrived.
// days_silent:     days since then; -1 if the host is retired.
// hosts:           "none"; see below.
// most_hosts_away: true while fewer than half of the hosts report on time. Then InfluxDB was probably
//     down, not the hosts. So no alert fires for a single silent host, until the hosts have had the
//     time to report again. A host reports on time if it sent a report in the last half of `silence`,
//     and the first of these reports came at most 0.55 * silence after the report before. With fewer
//     than three hosts, this column is always false.
//
// The row with the host "(most hosts)" is about all hosts. If there are at least three hosts and more
// than half of them are silent, it has days_silent, and its column hosts lists up to ten silent
// hosts. Otherwise days_silent is -1.
//
// If a tag is added or removed, for example by Telegraf, the points form another series. The newest
// report of a host counts.
//
// The bucket, as in INFLUXDB_BUCKET. On InfluxDB 1.x: database, or database/retention_policy.
bucket = "telegraf"

// The measurement, as in MEASUREMENT.
measurement = "certbot_renewal"

// A host is silent after this many days without a run report. Set it to at least twice the time
// between two certbot runs. With a lower value, all hosts seem to be late, and none is judged.
silence = 2.0

// How far back the query looks for the last report of a host. InfluxDB 1.8 reads all reports of this
// time, newer versions only the last one.
since = -400d

day = 86400000000000.0
silent_before = int(v: now()) - int(v: float(v: silence) * day)
recent_since = int(v: now()) - int(v: float(v: silence) * day / 2.0)
longest_gap = int(v: float(v: silence) * day * 0.55)

// Only run reports have the field reported_at. It is 0 in the report that retires the host.
reports = (start) =>
    from(bucket: bucket)
        |> range(start: start)
        |> filter(fn: (r) => r._measurement == measurement and not exists r.domain and r.host != "")
        |> filter(fn: (r) => r._field == "reported_at")

// One row for each host. last: the time of its last report, 0 if the host is retired. gap: the time
// from the report before recent_since to the first one after it. Times are in ns.
hosts =
    union(
        tables: [
            reports(start: since) |> last(),
            reports(start: time(v: recent_since - longest_gap)),
        ],
    )
        |> keep(columns: ["_time", "_value", "host"])
        |> group(columns: ["host"])
        |> sort(columns: ["_time"])
        |> reduce(
            identity: {last: 0, gap: 0},
            fn: (r, accumulator) =>
                ({
                    last: if r._value == 0 then 0 else int(v: r._time),
                    gap:
                        if accumulator.last < recent_since then
                            int(v: r._time) - accumulator.last
                        else
                            accumulator.gap,
                }),
        )
        |> group()

// One row about all hosts.
fleet =
    hosts
        |> sort(columns: ["host"])
        |> reduce(
            identity: {
                hosts: 0,
                on_time: 0,
                silent: 0,
                newest: 0,
                names: "",
            },
            fn: (r, accumulator) =>
                ({
                    hosts: if r.last > 0 then accumulator.hosts + 1 else accumulator.hosts,
                    on_time:
                        if r.last >= recent_since and r.gap <= longest_gap then
                            accumulator.on_time + 1
                        else
                            accumulator.on_time,
                    silent:
                        if r.last > 0 and r.last <= silent_before then
                            accumulator.silent + 1
                        else
                            accumulator.silent,
                    newest:
                        if r.last <= silent_before and r.last > accumulator.newest then
                            r.last
                        else
                            accumulator.newest,
                    names:
                        if r.last == 0 or r.last > silent_before or accumulator.silent >= 10 then
                            accumulator.names
                        else if accumulator.silent == 0 then
                            r.host
                        else
                            accumulator.names + ", " + r.host,
                }),
        )
        |> map(fn: (r) => ({r with are_silent: r.hosts > 2 and r.silent * 2 > r.hosts}))
        |> map(
            fn: (r) =>
                ({
                    host: "(most hosts)",
                    last: if r.are_silent then r.newest else 0,
                    hosts:
                        if r.are_silent then
                            string(v: r.silent) + " of " + string(v: r.hosts) + " hosts: " + r.names
                                +
                                (if r.silent > 10 then ", ..." else "")
                        else
                            "none",
                    away: if r.hosts > 2 and r.on_time * 2 < r.hosts then 1 else 0,
                }),
        )

// The row about all hosts is sorted before the others, and cumulativeSum carries its column away to
// them: a join would take longer.
union(
    tables: [
        hosts |> map(fn: (r) => ({host: r.host, last: r.last, hosts: "none", away: 0})),
        fleet,
    ],
)
    |> group()
    |> sort(columns: ["away"], desc: true)
    |> cumulativeSum(columns: ["away"])
    |> map(
        fn: (r) =>
            ({
                host: r.host,
                _time: now(),
                last_report: time(v: r.last),
                days_silent: if r.last == 0 then -1.0 else float(v: int(v: now()) - r.last) / day,
                hosts: r.hosts,
                most_hosts_away: r.away == 1 and r.host != "(most hosts)",
            }),
    )
    |> group(columns: ["host"])
