"""How figures are told."""
import statistics


def say(*columns):
    widths = (44, 14, 0)
    print("  ".join(f"{text:<{width}}" for text, width in zip(columns, widths)).rstrip(), flush=True)


def heading(text):
    print(f"\n{text}", flush=True)


def median(values):
    return statistics.median(values)


def p95(values):
    return sorted(values)[max(0, -(-len(values) * 95 // 100) - 1)]


def columns(unit, first):
    """Above what compare() says."""
    say("", unit, f"{'x ' + first:<9}{'CPU us':<9}{'x by CPU':<10}{'p50 ms':<9}p99 ms")


def compare(rows, rounds):
    """Cases that were measured in turn: `rounds` are dicts of figures by name, `rows` their names and titles. Ratios are to
    the first row's, round by round: of what was done in a second, and of the server's CPU time that each cost."""
    first = rows[0][0]
    for name, title in rows:
        def middle(of):
            return median(of(round_[name], round_[first]) for round_ in rounds)
        say(title, f"{middle(lambda own, _: own.per_second):,.0f}",
            f"{middle(lambda own, other: own.per_second / other.per_second):<9.2f}"
            f"{middle(lambda own, _: own.cpu_us):<9.2f}"
            f"{middle(lambda own, other: other.cpu_us / max(own.cpu_us, 1e-3)):<10.2f}"
            f"{middle(lambda own, _: own.p50_ms):<9.2f}{middle(lambda own, _: own.p99_ms):.2f}")


def compare_clients(unit, rows, rounds):
    """The same of clients that have measured themselves: what a core could do is what its CPU time says. A case without CPU
    time was not measured for it."""
    first = rows[0][0]
    say("", unit, f"{'x ' + first:<9}{'CPU us':<9}{'x by CPU':<10}a core's")
    for name, title in rows:
        def middle(of):
            return median(of(round_[name], round_[first]) for round_ in rounds)
        cpu_us = middle(lambda own, _: own.cpu_us)
        by_cpu = (f"{cpu_us:<9.2f}{middle(lambda own, other: other.cpu_us / own.cpu_us):<10.2f}{1e6 / cpu_us:,.0f}"
                  if cpu_us else "-")
        say(title, f"{middle(lambda own, _: own.per_second):,.0f}",
            f"{middle(lambda own, other: own.per_second / other.per_second):<9.2f}{by_cpu}")
