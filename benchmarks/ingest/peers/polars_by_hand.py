"""The work of ingest in plain Polars, in memory."""

import json
import resource
import sys
import time
from pathlib import Path

import polars as pl

SENSORS = ["Ws_avg", "Ba_avg", "Ot_avg", "P_avg"]
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
STEP_MS = 600_000
PURGE_MS = 64 * STEP_MS
STUCK_STEPS = 12


def ingest(path: str, out: Path) -> dict[str, int]:
    frame = pl.read_csv(
        path,
        columns=["Wind_turbine_name", "Date_time", *SENSORS],
        schema_overrides=dict.fromkeys(SENSORS, pl.Float64),
    ).with_row_index("row")
    when = pl.col("Date_time").str.to_datetime(
        "%Y-%m-%dT%H:%M:%S%z", time_unit="ms", time_zone="UTC"
    )
    frame = frame.select(
        pl.col("Wind_turbine_name").alias("entity"), when.alias("time"), *SENSORS, "row"
    )
    bad = (pl.col("Ot_avg") < -30) | (pl.col("Ot_avg") > 60)
    bad |= pl.any_horizontal(pl.col(SENSORS).is_infinite())
    rejected = frame.filter(bad).with_columns(reason=pl.lit("out of range"))
    frame = frame.filter(~bad.fill_null(False)).sort("entity", "time", "row")
    same_entity = pl.col("entity") == pl.col("entity").shift()
    again = (same_entity & (pl.col("time") == pl.col("time").shift())).fill_null(False)
    twice = frame.filter(again).with_columns(reason=pl.lit("duplicate"))
    frame = frame.filter(~again)

    pause = pl.col("time").diff().dt.total_milliseconds()
    gaps = frame.select((same_entity & (pause > 1.5 * STEP_MS)).sum()).item()
    stuck = {name: long_runs(frame, name, same_entity) for name in SENSORS}
    profile = frame.select(
        *(pl.col(SENSORS).min().name.suffix("_min"), pl.col(SENSORS).max().name.suffix("_max")),
        *(pl.col(SENSORS).mean().name.suffix("_mean"), pl.col(SENSORS).std().name.suffix("_std")),
        pl.col(SENSORS).null_count().name.suffix("_missing"),
        *(pl.col(SENSORS).quantile(q).name.suffix(f"_{q}") for q in QUANTILES),
    )
    profile.write_json(out / "profile.json")

    cuts = frame.select(
        a=pl.col("time").quantile(0.6, "higher"), b=pl.col("time").quantile(0.8, "higher")
    )
    calibrate, test = cuts.row(0)
    purge = pl.duration(milliseconds=PURGE_MS)
    split = (
        pl.when(pl.col("time") < calibrate)
        .then(pl.lit("train"))
        .when(pl.col("time") < pl.lit(calibrate) + purge)
        .then(pl.lit("purged"))
        .when(pl.col("time") < test)
        .then(pl.lit("calibrate"))
        .when(pl.col("time") < pl.lit(test) + purge)
        .then(pl.lit("purged"))
        .otherwise(pl.lit("test"))
    )
    frame = frame.with_columns(split=split)
    frame.write_parquet(out / "kept.parquet", compression="zstd", compression_level=1)
    rejects = pl.concat([rejected, twice])
    rejects.write_parquet(out / "rejects.parquet", compression="zstd", compression_level=1)
    return {
        "kept": frame.height,
        "rejected": rejects.height,
        "gaps": gaps,
        "stuck": stuck["Ot_avg"],
        "purged": frame.filter(pl.col("split") == "purged").height,
    }


def long_runs(frame: pl.DataFrame, name: str, same_entity: pl.Expr) -> int:
    goes_on = (same_entity & (pl.col(name) == pl.col(name).shift())).fill_null(False)
    starts = frame.select((~goes_on).arg_true()).to_series()
    lengths = starts.extend(pl.Series([frame.height], dtype=starts.dtype)).diff().drop_nulls()
    return int((lengths > STUCK_STEPS).sum())


if __name__ == "__main__":
    start = time.perf_counter()
    counts = ingest(sys.argv[1], Path(sys.argv[2]))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mib": peak, "counts": counts}))
