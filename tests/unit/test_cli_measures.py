"""What a run measured, on a terminal of 100 columns."""

import io
from typing import Any

import pytest
from rich.console import Console

from genba.ui.cli.figures import when
from genba.ui.cli.measure_report import measures_report

CLASSES = ("blob", "missing", "patch", "a_long_name_of_a_kind_of_defect")


def measured(value: float, **more: Any) -> dict[str, Any]:
    return {"value": value, "unit": "", "method": "measured", **more}


def shown(evaluated: dict[str, Any], width: int = 100) -> str:
    """Print the report; every line of it fits the terminal."""
    found = measures_report(evaluated)
    assert found is not None
    text = io.StringIO()
    Console(file=text, width=width, highlight=False).print(found)
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    assert max(map(len, lines)) <= width
    return "\n".join(lines)


def inspection() -> dict[str, Any]:
    interval = {"low": 0.0123456, "high": 0.9876543}
    names = ["aupro", *(f"recall_{c}" for c in CLASSES), "overkill", "recall"]
    measures = {name: measured(0.512345, **interval) for name in names}
    for name in ("auroc", "recall", "recall_patch"):
        measures[f"simulated_{name}"] = measured(0.7, **interval) | {"method": "modelled"}
    return {
        "measures": measures,
        "baselines": {
            "nearest good image (pixels)": {"measures": {"overkill": measured(0.25, **interval)}},
            "principal components (pixels)": {"measures": {"recall": measured(0.75)}},
        },
        "verdict": {"gates": [{"name": "overkill"}, {"name": "latency_ms_p99"}]},
    }


def test_gated_measures_come_first_and_no_interval_is_broken() -> None:
    lines = shown(inspection()).splitlines()
    table = [line.split() for line in lines if "0.5123 [0.01235 to 0.9877]" in line]
    assert [cells[0] for cells in table] == ["overkill", "aupro", "recall"]
    assert table[0][-2:] == ["0.25", "-"]  # a baseline's value; its interval is in the JSON
    assert table[2][-2:] == ["-", "0.75"]


@pytest.mark.parametrize("width", [80, 100])
def test_measures_by_class_and_simulated_ones_are_told_in_lines(width: int) -> None:
    text = shown(inspection(), width)
    told = [line for line in text.splitlines() if line.startswith(("  recall ", "  simulated "))]
    assert [line.split("  ")[1] for line in told] == ["recall", "simulated (modelled)"]
    assert "blob 0.5123" in told[0]
    assert "auroc 0.7   recall 0.7   recall_patch 0.7" in told[1]
    assert "intervals: --json" in text


def test_horizons_are_in_their_order_with_their_own_units_where_these_differ() -> None:
    units = {"mae_h8": "kW", "mae_h48": "kW", "mae_h1": "kW", "mae_scaled": ""}
    measures = {name: measured(1.5, unit=unit) for name, unit in units.items()}
    text = shown({"measures": {"mae": measured(2.0, unit="kW"), **measures}})
    assert "mae  h1 1.5 kW   h8 1.5 kW   h48 1.5 kW   scaled 1.5\n" in text
    del measures["mae_scaled"]
    assert "mae (kW)  h1 1.5   h8 1.5   h48 1.5\n" in shown({"measures": measures})


def test_a_few_measures_stay_a_table() -> None:
    text = shown({"measures": {"mae": measured(1.5), "mae_h1": measured(1.25)}})
    assert "mae_h1" in text
    assert "--json" not in text


def test_what_was_not_measured_is_not_shown() -> None:
    assert measures_report({}) is None


def test_a_small_time_is_a_count() -> None:
    assert (when(226), when(-5)) == ("226", "-5")
    assert when(1_420_030_800_000).startswith("2014-12-31")
