"""The work of ingest in plain DuckDB."""

import json
import resource
import sys
import time
from pathlib import Path

import duckdb

SENSORS = ["Ws_avg", "Ba_avg", "Ot_avg", "P_avg"]
STEP_MS = 600_000
PURGE_MS = 64 * STEP_MS
STUCK_STEPS = 12


def ingest(path: str, out: Path) -> dict[str, int]:
    db = duckdb.connect()
    db.execute(
        f"""
        create table raw as
        select Wind_turbine_name as entity, epoch_ms(Date_time) as time, {", ".join(SENSORS)},
               row_number() over () as row
        from read_csv(?, types = {{'Date_time': 'TIMESTAMPTZ', 'Ws_avg': 'DOUBLE',
                      'Ba_avg': 'DOUBLE', 'Ot_avg': 'DOUBLE', 'P_avg': 'DOUBLE'}})
        """,
        [path],
    )
    finite = " and ".join(f"coalesce(isfinite({name}), true)" for name in SENSORS)
    db.execute(
        f"""
        create table judged as
        select *, case when not (coalesce(Ot_avg between -30 and 60, true) and {finite})
                       then 'out of range'
                       when row_number() over (partition by entity, time order by
                            coalesce(Ot_avg between -30 and 60, true) desc, row) > 1
                       then 'duplicate' end as reason
        from raw
        """
    )
    db.execute(
        "create table kept as select * from judged where reason is null order by entity, time"
    )
    gaps = _one(
        db,
        f"""select count(*) from (select time - lag(time) over (partition by entity order by time)
            as pause from kept) where pause > {1.5 * STEP_MS}""",
    )
    stuck = {name: _one(db, _stuck(name)) for name in SENSORS}
    profile = ", ".join(
        f"min({n}), max({n}), avg({n}), stddev_pop({n}), count(*) - count({n}), "
        f"quantile_cont({n}, [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99])"
        for n in SENSORS
    )
    row = db.execute(f"select {profile} from kept").fetchall()
    (out / "profile.json").write_text(json.dumps(row))
    calibrate = _one(db, "select quantile_disc(time, 0.6000024) from kept")
    test = _one(db, "select quantile_disc(time, 0.8000024) from kept")
    db.execute(
        f"""
        copy (select *, case when time < {calibrate} then 'train'
                             when time < {calibrate + PURGE_MS} then 'purged'
                             when time < {test} then 'calibrate'
                             when time < {test + PURGE_MS} then 'purged' else 'test' end as split
              from kept) to '{out / "kept.parquet"}'
        (format parquet, compression zstd, compression_level 1)
        """
    )
    db.execute(
        f"""copy (select * from judged where reason is not null) to '{out / "rejects.parquet"}'
            (format parquet, compression zstd, compression_level 1)"""
    )
    return {
        "kept": _one(db, "select count(*) from kept"),
        "rejected": _one(db, "select count(*) from judged where reason is not null"),
        "gaps": gaps,
        "stuck": stuck["Ot_avg"],
        "purged": _one(db, f"select count(*) from '{out / 'kept.parquet'}' where split = 'purged'"),
    }


def _stuck(name: str) -> str:
    return f"""
        select count(*) from (
          select count(*) as n from (
            select entity, {name}, sum(new) over (order by entity, time) as run from (
              select entity, time, {name}, ({name} is distinct from lag({name}) over w
                     or entity is distinct from lag(entity) over w)::int as new
              from kept window w as (order by entity, time)))
          where {name} is not null group by run) where n > {STUCK_STEPS}"""


def _one(db: duckdb.DuckDBPyConnection, query: str) -> int:
    return int(db.execute(query).fetchall()[0][0])


if __name__ == "__main__":
    start = time.perf_counter()
    counts = ingest(sys.argv[1], Path(sys.argv[2]))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mib": peak, "counts": counts}))
