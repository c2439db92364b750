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
            "#datatype,string,long,string,string,string,string,string,string,string,string,string,string,string,string,string,string
#group,false,false,false,false,false,false,false,false,false,false,false,false,false,false,false,false
#default,_result,,,,,,,,,,,,,,,
,result,table,mode,succeeded,not_due,not_processed,failed,unreadable,failures,failure,certbot,hook,retired,exit_status,started_at,duration
,,0,none,none,none,none,none,none,none,none,none,none,0,0,0,0
",
    )
fields_of_runs = (fields) =>
    from(bucket: bucket)
        |> range(start: since)
        |> filter(fn: (r) => r._measurement == measurement and not exists r.domain and r.host != "")
        |> filter(fn: fields)
        |> group()

// The numbers and the texts of each run become columns of one table.
points =
    union(
        tables: [
            fields_of_runs(
                fields: (r) =>
                    r._field == "failing" or r._field == "retired" or r._field == "certificates"
                        or
                        r._field == "exit_status" or r._field == "started_at" or r._field
                        ==
                        "duration",
            )
                |> toString(),
            fields_of_runs(
                fields: (r) =>
                    r._field == "mode" or r._field == "succeeded" or r._field == "not_due"
                        or
                        r._field == "not_processed" or r._field == "failed" or r._field
                        ==
                        "unreadable" or r._field == "failures" or r._field == "failure" or r._field
                        ==
                        "certbot" or r._field == "hook",
            ),
        ],
    )
        |> pivot(rowKey: ["_time", "host"], columnKey: ["_field"], valueColumn: "_value")

union(tables: [points, every_column])
    |> group()
    |> filter(fn: (r) => exists r.failing and exists r.certificates)
    |> filter(fn: (r) => not exists r.retired or r.retired == "0")
    |> map(
        fn: (r) =>
            ({r with started: if exists r.started_at then int(v: r.started_at) else -1,
                seconds: if exists r.duration then int(v: r.duration) else -1,
            }),
    )
    |> map(
        fn: (r) =>
            ({
                time: r._time,
                host: r.host,
                started: if r.started > 0 then time(v: r.started * second) else r._time,
                ended:
                    if r.started > 0 and r.seconds >= 0 then
                        time(v: (r.started + r.seconds) * second)
                    else
                        r._time,
                mode: if exists r.mode then r.mode else "none",
                exit_status: if exists r.exit_status then int(v: r.exit_status) else -1,
                certificates: int(v: r.certificates),
                failing: int(v: r.failing),
                renewed: if exists r.succeeded then r.succeeded else "none",
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
