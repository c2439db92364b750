// Shows every host, and the days since its last run report: one row each, at the time of the query.
// The alert host_silent runs this query.
//
// last_report:     the time of the last run report. If not all certificates of the host were reported
//     then, the time of the oldest last report of a certificate. So if two certbot installations
//     report as the same host, the host is silent when one of them is.
// days_silent:     days since then; -1 for a host without run reports, or if all its certificates
//     are retired.
// lineages:        the certificates that were last reported at that time, separated by spaces.
// most_hosts_away: true while fewer than half of the hosts report on time. Then InfluxDB was probably
//     down, not the hosts. So no alert fires for a single silent host, until the hosts have had the
//     time to report again. A host reports on time if it sent a report in the last half of `silence`,
//     and the first of these reports came at most 0.55 * silence after the report before. With fewer
//     than three hosts, this column is always false.
//
// The row with the host "(most hosts)" is about all hosts. If there are at least three hosts and more
// than half of them are silent, it has days_silent, and its column lineages lists up to ten silent
// hosts. Otherwise days_silent is -1.
//
// The bucket, as in INFLUXDB_BUCKET. On InfluxDB 1.x: database, or database/retention_policy.
bucket = "telegraf"

// The measurement, as in MEASUREMENT.
measurement = "certbot_renewal"

// A host is silent after this many days without a run report. Set it to at least twice the time
// between two certbot runs. With a lower value, all hosts seem to be late, and none is judged.
silence = 2.0

// How far back the query looks for the last report of a certificate. Set it to the longest lifetime
// of your certificates, or longer. InfluxDB 1.8 reads all reports of this time, newer versions only
// the last one.
since = -400d

second = 1000000000
silent_before = int(v: now()) - int(v: float(v: silence) * 86400000000000.0)
recent_since = int(v: now()) - int(v: float(v: silence) * 43200000000000.0)
longest_gap = int(v: float(v: silence) * 47520000000000.0)
hosts = () =>
    from(bucket: bucket)
        |> range(start: since)
        |> filter(fn: (r) => r._measurement == measurement and r.domain == "all")
        |> filter(
            fn: (r) => r._field == "renewal_due" or r._field == "not_after" or r._field == "run_at",
        )
        |> last()
        |> filter(fn: (r) => exists r.host and exists r.lineage)
        |> group()
        |> pivot(rowKey: ["_time", "host", "lineage"], columnKey: ["_field"], valueColumn: "_value")
        |> filter(fn: (r) => exists r.renewal_due and exists r.not_after and exists r.run_at)
        |> sort(columns: ["_time"], desc: true)
        |> map(fn: (r) => ({r with certificate: r.host + "/" + r.lineage}))
        |> unique(column: "certificate")
        |> group(columns: ["host"])
        |> sort(columns: ["lineage"])
        |> reduce(
            identity: {last_report: 0, lineages: "none"},
            fn: (r, accumulator) =>
                ({
                    last_report:
                        if r.renewal_due == 0 or r.run_at == 0 or r.run_at > accumulator.last_report
                                    and
                                    accumulator.last_report > 0
                        then
                            accumulator.last_report
                        else
                            r.run_at,
                    lineages:
                        if r.renewal_due == 0 or r.run_at == 0 or r.run_at > accumulator.last_report
                                    and
                                    accumulator.last_report > 0
                        then
                            accumulator.lineages
                        else if r.run_at == accumulator.last_report then
                            accumulator.lineages + " " + r.lineage
                        else
                            r.lineage,
                }),
        )
        |> group()
fleet =
    union(
        tables: [
            hosts() |> map(fn: (r) => ({host: r.host, last_report: r.last_report, reported_at: 0})),
            from(bucket: bucket)
                |> range(start: time(v: recent_since - longest_gap))
                |> filter(fn: (r) => r._measurement == measurement and r._field == "certificates")
                |> filter(fn: (r) => exists r.host)
                |> group()
                |> map(fn: (r) => ({host: r.host, last_report: 0, reported_at: int(v: r._time)})),
        ],
    )
        |> group()
        |> sort(columns: ["host", "reported_at"])
        |> reduce(
            identity: {
                known: 0,
                hosts: 0,
                on_time: 0,
                silent: 0,
                newest: 0,
                names: "",
                current_host: "",
                reported_at: 0,
            },
            fn: (r, accumulator) =>
                ({
                    known: if r.reported_at == 0 then accumulator.known + 1 else accumulator.known,
                    hosts: if r.last_report > 0 then accumulator.hosts + 1 else accumulator.hosts,
                    on_time:
                        if r.host == accumulator.current_host and r.reported_at >= recent_since
                                and
                                accumulator.reported_at < recent_since and r.reported_at
                                    -
                                    accumulator.reported_at <= longest_gap
                        then
                            accumulator.on_time + 1
                        else
                            accumulator.on_time,
                    silent:
                        if r.last_report > 0 and r.last_report * second <= silent_before then
                            accumulator.silent + 1
                        else
                            accumulator.silent,
                    newest:
                        if r.last_report * second <= silent_before and r.last_report
                                >
                                accumulator.newest
                        then
                            r.last_report
                        else
                            accumulator.newest,
                    names:
                        if r.last_report > 0 and r.last_report * second <= silent_before
                                and
                                accumulator.silent < 10
                        then
                            accumulator.names + (if accumulator.silent > 0 then ", " else "")
                                +
                                r.host
                        else
                            accumulator.names,
                    current_host:
                        if r.reported_at > 0 then
                            accumulator.current_host
                        else if r.last_report > 0 then
                            r.host
                        else
                            "",
                    reported_at: r.reported_at,
                }),
        )
        |> filter(fn: (r) => r.known > 0)
        |> map(fn: (r) => ({r with all: 1}))

union(
    tables: [
        join(
            tables: {host: hosts() |> map(fn: (r) => ({r with all: 1})), fleet: fleet},
            on: ["all"],
        )
            |> map(
                fn: (r) =>
                    ({
                        host: r.host,
                        last_report: r.last_report,
                        lineages: r.lineages,
                        most_hosts_away: r.hosts > 2 and r.on_time * 2 < r.hosts,
                    }),
            ),
        fleet
            |> map(
                fn: (r) =>
                    ({
                        host: "(most hosts)",
                        last_report: if r.hosts > 2 and r.silent * 2 > r.hosts then r.newest else 0,
                        lineages:
                            if r.hosts > 2 and r.silent * 2 > r.hosts then
                                string(v: r.silent) + " of " + string(v: r.hosts) + " hosts: "
                                    +
                                    r.names + (if r.silent > 10 then ", ..." else "")
                            else
                                "none",
                        most_hosts_away: false,
                    }),
            ),
    ],
)
    |> group(columns: ["host"])
    |> map(
        fn: (r) =>
            ({
                host: r.host,
                _time: now(),
                last_report: time(v: r.last_report * second),
                days_silent:
                    if r.last_report == 0 then
                        -1.0
                    else
                        float(v: int(v: now()) / second - r.last_report) / 86400.0,
                lineages: r.lineages,
                most_hosts_away: r.most_hosts_away,
            }),
    )
