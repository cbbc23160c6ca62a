"""Requests in words and tables: for the page and the terminal alike."""

from imcsim.report.parts import LoadSummary, RequestsSummary
from imcsim.report.views import TableView
from imcsim.units import human, percent

AT_ONCE = "all at once"


def rate_text(per_s: float | None) -> str:
    """Return a rate for people.

    >>> rate_text(4_462_000.0), rate_text(None)
    ('4.462 M/s', 'all at once')
    """
    return AT_ONCE if per_s is None else f"{human(per_s, '')}/s"


def requests_text(found: RequestsSummary) -> str:
    """Return in one line how many were served, how fast, and how long they took."""
    latency = found.latency_ns
    return (
        f"{found.n} requests, offered {rate_text(found.offered_per_s)}, served {rate_text(found.throughput_per_s)} "
        f"(formula: {rate_text(found.capacity_per_s)}); latency {human(latency.mean, 'ns')} on average, half "
        f"within {human(latency.p50, 'ns')}, 95 % within {human(latency.p95, 'ns')}, "
        f"99 % within {human(latency.p99, 'ns')}"
    )


def requests_table(found: RequestsSummary) -> TableView:
    """Return the figures of the requests, a line each."""
    latency = found.latency_ns
    rows: list[tuple[str, ...]] = [
        ("Requests", str(found.n)),
        ("Arrivals", found.arrivals),
        ("Offered", rate_text(found.offered_per_s)),
        ("Served", rate_text(found.throughput_per_s)),
        ("By formula, in the long run", rate_text(found.capacity_per_s)),
        ("Mean latency", human(latency.mean, "ns")),
        ("p50", human(latency.p50, "ns")),
        ("p95", human(latency.p95, "ns")),
        ("p99", human(latency.p99, "ns")),
        ("Greatest", human(latency.greatest, "ns")),
        ("Mean wait before the first task", human(found.wait_ns, "ns")),
        ("In the system on average", f"{found.mean_in_system:.3g}"),
        ("In the system at most", str(found.most_in_system)),
        (f"Busiest unit, {found.busiest_unit}, works", percent(found.utilization)),
        ("Energy a request", human(found.energy_pJ, "pJ")),
    ]
    return TableView("Requests", ("", ""), rows, frozenset({1}))


def loads_table(loads: tuple[LoadSummary, ...]) -> TableView:
    """Return a line a load: rates and latencies."""
    head = ("Load", "Offered", "Served", "Mean", "p50", "p95", "p99")
    rows: list[tuple[str, ...]] = [
        (
            percent(at.load, digits=0),
            rate_text(at.offered_per_s),
            rate_text(at.throughput_per_s),
            *(human(ns, "ns") for ns in (at.mean_ns, at.p50_ns, at.p95_ns, at.p99_ns)),
        )
        for at in loads
    ]
    return TableView("Latency by offered load, Poisson arrivals", head, rows, frozenset(range(1, len(head))))
