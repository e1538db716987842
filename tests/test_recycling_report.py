"""What is told of sequences of systems, from made-up measurements."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from configs import krylov_recycling as configs
from experiments import families, recycling_report
from subspace_jax import krylov

DARCY, HELMHOLTZ = "Darcy, released matrix, full field", "Helmholtz, indefinite"


def record(family, method, steps, each, missed=0):
    return {"family": family, "method": method, "steps": steps, "matvecs": steps, "each": each,
            "residual": 1e-6, "missed": missed}  # fmt: skip


def settings(**changes):
    config = configs.get_config("smoke")
    config.families = (DARCY, HELMHOLTZ)
    config.num_systems = 5
    config.update(changes)
    return config


SOLVED = [
    record(DARCY, "gmres", [40, 50, 60, 50, 50], 0.010, missed=2),
    record(DARCY, "bicgstab", [5, 5, 5, 5, 5], 0.001, missed=1),
    record(DARCY, "scipy splu", [1, 1, 1, 1, 1], 0.004),
    record(DARCY, "gcrodr", [30, 30, 30, 30, 30], 0.003),
    record(DARCY, "gcrodr, sorted", [10, 11, 12, 13, 14], 0.002),
    record(DARCY, "gmres, Jacobi", [30, 30, 30, 30, 30], 0.030),
    record(DARCY, "gcrodr, sorted, Jacobi", [10, 10, 10, 10, 10], 0.020),
    record(HELMHOLTZ, "minres", [9, 9, 9, 9, 9], 0.001),
    record(HELMHOLTZ, "gcrodr, sorted", [3, 3, 3, 3, 3], 0.002),
]


def test_gains_are_over_the_baseline_and_over_the_best_that_solves_most():
    results = recycling_report.summarize(settings(), SOLVED)
    assert list(results["gains"]) == [DARCY]  # no gmres on the other
    gain = results["gains"][DARCY]
    assert (gain["solver"], gain["baseline"]) == ("gcrodr, sorted", "scipy splu")
    assert gain["steps"] == pytest.approx(50 / 12)
    assert gain["time"] == pytest.approx(5)
    assert gain["honest"] == pytest.approx(2)
    assert results["num_unsolved"] == 3
    assert "(scipy splu: 2.5 times less)" in results["summary"]


@pytest.mark.parametrize("kept", [["gmres"], ["gcrodr"], ["gcrodr", "scipy splu"]])
def test_without_two_sides_or_the_baseline_there_is_no_gain(kept):
    solved = [r for r in SOLVED if r["method"] in kept]
    results = recycling_report.summarize(settings(families=(DARCY,)), solved)
    assert results["gains"] == {}
    assert "gmres" in recycling_report.table(settings(families=(DARCY,)), results)


@pytest.mark.parametrize(
    ("size", "rtol", "unknowns", "steps"),
    [
        (50, 1e-5, 2_500, None),
        (80, 1e-8, 6_400, 22.9),
        (200, 1e-5, 40_000, None),
        (50, 1e-3, None, None),
    ],
)
def test_the_paper_stands_beside_at_its_nearest_size_and_the_same_tolerance(
    size, rtol, unknowns, steps
):
    config = settings(families=(DARCY,), size=size, rtol=rtol)
    both = recycling_report.summarize(config, SOLVED)["paper"][DARCY]
    plain, jacobi = both["none"], both["Jacobi"]
    assert plain["steps"] / plain["cost_of_a_step"] == pytest.approx(plain["time"]) == 5
    assert jacobi["steps"] == pytest.approx(3)
    assert jacobi["time"] == pytest.approx(1.5)
    assert plain.get("published", {}).get("unknowns") == unknowns
    assert jacobi.get("published", {}).get("steps") == steps
    lines = recycling_report.paper_lines({DARCY: both})
    assert sum("published" in line for line in lines) == (unknowns is not None) + (
        steps is not None
    )


def test_the_table_tells_speeds_against_both_and_what_is_unsolved():
    config = settings()
    text = recycling_report.table(config, recycling_report.summarize(config, SOLVED))
    lines = [line.split() for line in text.splitlines()]
    titles = next(line for line in lines if line[:1] == ["Darcy,"])
    assert titles[-4:] == ["x", "gmres", "x", "best"]
    row = next(line for line in lines if line[:2] == ["gcrodr,", "sorted"] and len(line) == 7)
    assert row[2:] == ["12.0", "12.0", "2.000", "5.00", "2.00"]
    row = next(line for line in lines if line[:1] == ["minres"])
    assert row[1:] == ["9.0", "9.0", "1.000", "1.00"]  # no baseline there
    assert "3 unsolved" not in text
    assert "2 unsolved" in text


def test_a_sorted_solver_s_curve_is_along_its_own_order():
    curves = recycling_report.summarize(settings(), SOLVED)["curves"][DARCY]
    order = krylov.sort_systems(families.SEQUENCES[DARCY](5, 14).features)
    assert not np.array_equal(order, np.arange(5))
    np.testing.assert_array_equal(curves["gcrodr, sorted"], 10 + np.asarray(order))
    assert curves["gmres"] == [40, 50, 60, 50, 50]


def test_the_legend_has_every_line_of_every_panel():
    figure = Figure()
    recycling_report.draw(recycling_report.summarize(settings(), SOLVED), figure)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["gmres", "minres", "gcrodr", "gcrodr, sorted"]
