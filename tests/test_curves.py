"""A run's figures as the page asks for them."""

from __future__ import annotations

import csv
import io

import pytest
from lossruns import make_run


def test_a_part_of_a_run_is_given_step_by_step(live_server):
    job = make_run(live_server.home, "alpha", 30_000, flags=["--lr_scheduler", "linear"])
    whole = live_server.get(f"/api/jobs/{job}/metrics?points=400")
    assert whole["count"] == 30_000 and whole["thinned"]
    assert len(whole["step"]) <= 402
    assert whole["epochs"] == [[1, 1], [2, 7_501], [3, 15_001], [4, 22_501]]
    part = live_server.get(f"/api/jobs/{job}/metrics?from=15001&to=15100")
    assert part["step"] == list(range(15_000, 15_102))
    assert part["lr"][1] == pytest.approx(5e-5)
    assert part["lr_reason"] is None


def test_all_steps_come_as_a_table(live_server):
    job = make_run(live_server.home, "älpha", 5_000)
    answer = live_server.call("GET", f"/api/jobs/{job}/metrics?format=csv")
    assert answer.headers["Content-Type"].startswith("text/csv")
    assert "attachment" in answer.headers["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [int(row["step"]) for row in rows] == list(range(1, 5_001))


@pytest.mark.parametrize("query", ["from=x", "to=-1", "points=1.5", "from=" + "9" * 30])
def test_what_is_no_step_is_refused_with_a_sentence(live_server, query):
    job = make_run(live_server.home, "alpha", 10)
    answer = live_server.call("GET", f"/api/jobs/{job}/metrics?{query}")
    assert answer.status_code == 422
    assert "must be a whole number" in answer.json()["error"]


@pytest.mark.parametrize("argv", [None, "x", [1], ["python"], ["python", "train.py", "--seed"]])
def test_a_record_that_does_not_tell_its_command_has_no_rate(live_server, argv):
    job = make_run(live_server.home, "alpha", 10, argv=argv)
    found = live_server.get(f"/api/jobs/{job}/metrics")
    assert found["step"] == list(range(1, 11))
    if argv != ["python"]:  # a training with no flags has the learning rate Musubi begins with
        assert found["lr"] == [None] * 10 and found["lr_reason"]


def test_the_metrics_of_no_run_are_not_found(live_server):
    for query in ("", "?format=csv"):
        assert live_server.call("GET", f"/api/jobs/none/metrics{query}").status_code == 404
