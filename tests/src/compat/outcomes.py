"""A pytest plugin: one line of JSON for each test, into the file that OUTCOMES names."""
import json
import os


def pytest_runtest_logreport(report):
    # Set-up and clean-up count when they go wrong.
    if report.when != "call" and report.outcome == "passed":
        return
    why = "" if report.passed else str(report.longrepr)
    with open(os.environ["OUTCOMES"], "a") as file:
        file.write(json.dumps({"test": report.nodeid.split("::", 1)[1], "state": report.outcome, "why": why}) + "\n")
