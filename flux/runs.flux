// Shows every certbot run that was reported, the newest first. Use it as a record for audits.
//
// time:         when the run was reported. If the post hook and the run report told of the same run,
//     the later of the two is shown.
// started, ended: when certbot started and ended, by the clock of the host. Both are the time of the
//     report if this is not known.
// mode:         how certbot was started, for example "renew".
// exit_status:  certbot's exit status.
// certificates: how many certificates the host has.
// failing:      0 if the run succeeded, else the step of the incident. failing.flux explains it.
// renewed, not_due, not_processed, failed, unreadable: the certificates with this result, separated
//     by spaces.
// failures:     why, in certbot's words: "name: reason", separated by " | ".
// failure:      why the run as a whole failed.
// certbot, hook: the versions of certbot and of the program that sent the report.
//
// A text is "none" if there is nothing to show. A number is -1 if it is not known.
//
import "csv"

// The bucket, as in INFLUXDB_BUCKET. On InfluxDB 1.x: database, or database/retention_policy.
bucket = "telegraf"

// The measurement, as in MEASUREMENT.
measurement = "certbot_renewal"

// How far back the query looks.
since = -400d

second = 1000000000

// InfluxDB 1.8 refuses a query with a column that no point has. This row has every column that points
// may lack. It is not about a run, and a filter drops it.
every_column =
    csv.from(
        csv:
            "#datatype,string,long,string,string,string,string,string,string,string,string,string,string,long,long,long
#group,false,false,false,false,false,false,false,false,false,false,false,false,false,false,false
#default,_result,,,,,,,,,,,,,,
,result,table,mode,renewed,not_due,not_processed,failed,unreadable,failures,failure,certbot,hook,retired,started_at,duration
,,0,none,none,none,none,none,none,none,none,none,none,0,0,0
",
    )
points =
    from(bucket: bucket)
        |> range(start: since)
        |> filter(fn: (r) => r._measurement == measurement and not exists r.domain and r.host != "")
        |> filter(fn: (r) => not exists r.target)
        |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")
        |> group()

union(tables: [points, every_column])
    |> group()
    |> filter(fn: (r) => exists r.failing and exists r.certificates)
    |> filter(fn: (r) => not exists r.retired or r.retired == 0)
    |> map(
        fn: (r) =>
            ({r with start_known: exists r.started_at and r.started_at > 0,
                end_known:
                    exists r.started_at and exists r.duration and r.started_at > 0 and r.duration
                        >=
                        0,
            }),
    )
    |> map(
        fn: (r) =>
            ({
                time: r._time,
                host: r.host,
                started: if r.start_known then time(v: r.started_at * second) else r._time,
                ended:
                    if r.end_known then
                        time(v: (r.started_at + r.duration) * second)
                    else
                        r._time,
                mode: if exists r.mode then r.mode else "none",
                exit_status: if exists r.exit_status then r.exit_status else -1,
                certificates: r.certificates,
                failing: r.failing,
                renewed: if exists r.renewed then r.renewed else "none",
                not_due: if exists r.not_due then r.not_due else "none",
                not_processed: if exists r.not_processed then r.not_processed else "none",
                failed: if exists r.failed then r.failed else "none",
                unreadable: if exists r.unreadable then r.unreadable else "none",
                failures: if exists r.failures then r.failures else "none",
                failure: if exists r.failure then r.failure else "none",
                certbot: if exists r.certbot then r.certbot else "none",
                hook: if exists r.hook then r.hook else "none",
            }),
    )
    |> sort(columns: ["time", "host"], desc: true)
    |> map(fn: (r) => ({r with run: r.host + " " + string(v: r.started)}))
    |> unique(column: "run")
    |> drop(columns: ["run"])
