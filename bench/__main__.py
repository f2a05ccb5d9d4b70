"""The command `./run bench`: start all targets, measure in turns, print, write."""

import argparse
import asyncio
import dataclasses
import json
import os
import resource
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop

from bench import machine, report, scenarios, targets
from bench.figures import Figures, median_of_rounds, with_comparisons
from bench.load import LoadError
from bench.processes import (
    Cores,
    ProcessError,
    choose_cores,
    end_cleanly_when_told,
)
from bench.scenarios import QUICK, Plan, Scenario
from bench.targets import Direct, Target

PARTS = ("startup", "rest", "json", "stream", "paced")
OPEN_FILES = 8192
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
PAGE = Path(__file__).with_name("page.md")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Bench:
    """One run: targets that are up, and a loop to put load on them."""

    def __init__(self, plan: Plan, directory: Path, cores: Cores) -> None:
        self.plan = plan
        self.directory = directory
        self.cores = cores
        self.direct = Direct(directory, core=cores.load)
        self.targets: list[Target] = []
        self.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)

    def prepare(self, names: Sequence[str]) -> None:
        """Start the upstream and make ready what can be measured here."""
        self.direct.start()
        upstream = f"http://127.0.0.1:{self.direct.port}"
        for name in names:
            target = targets.KINDS[name](self.directory, upstream, self.cores.target)
            say(f"preparing {target.title}")
            target.prepare(self.plan.accounts)
            self.targets.append(target)

    def start_up(self) -> report.Table:
        """Time the way from a start to the first answer, the targets taking turns."""
        table = report.Table("startup", "Start")
        rounds: dict[str, list[Figures]] = {}
        for number in range(self.plan.starts):
            for target in self.targets:
                say(f"start {number + 1} of {self.plan.starts}: {target.title}")
                seconds = scenarios.first_answer_seconds(target)
                rounds.setdefault(target.name, []).append({"first_answer_s": seconds})
        table.rows = {name: median_of_rounds(each) for name, each in rounds.items()}
        return table

    def start(self) -> None:
        for target in self.targets:
            say(f"starting {target.title}")
            target.start()
        time.sleep(self.plan.settle_seconds)

    def rest(self) -> report.Table:
        say("measuring everything at rest")
        rows = scenarios.at_rest(self.targets, self.plan.rest_seconds)
        return report.Table("rest", "At rest", rows)

    def load(self, scenario: Scenario) -> report.Table:
        """Measure one scenario in rounds: every target once, then all again."""
        table = report.Table(scenario.kind, scenario.title)
        rounds: dict[str, list[Figures]] = {}
        for number in range(scenario.rounds):
            for target in [self.direct, *self.targets]:
                if target.name in table.failures:
                    continue
                say(f"{scenario.title}, round {number + 1}: {target.title}")
                try:
                    figures = self.runner.run(scenario.measure(target))
                except (LoadError, ProcessError, OSError) as error:
                    say(f"FAILED: {error}")
                    table.failures[target.name] = str(error)
                else:
                    rounds.setdefault(target.name, []).append(figures)
        table.rows = with_comparisons(
            {
                name: median_of_rounds(each)
                for name, each in rounds.items()
                if name not in table.failures
            },
            baseline="direct",
            yardstick="relay",
        )
        return table

    def close(self) -> None:
        for target in [*self.targets, self.direct]:
            target.stop()
        self.runner.close()


@contextmanager
def bench(plan: Plan) -> Iterator[Bench]:
    """Give a run its directory and cores; end all that it started, however it ends."""
    cores = choose_cores()
    affinity = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        run = Bench(plan, Path(directory), cores)
        try:
            if cores.load is not None:
                os.sched_setaffinity(0, {cores.load})
            yield run
        finally:
            with undisturbed():
                run.close()
            os.sched_setaffinity(0, affinity)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let no second Ctrl-C cut the clean-up short; it is bounded by itself."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def measure(options: argparse.Namespace, plan: Plan, result: report.Report) -> None:
    """Fill *result*, table by table."""
    names = []
    quick_ones = [name for name in targets.KINDS if name != "litellm"]
    for name in options.targets or (quick_ones if options.quick else targets.KINDS):
        why = targets.KINDS[name].missing()
        if why:
            result.missing[name] = why
        else:
            names.append(name)
            if version := targets.KINDS[name].version():
                result.machine[targets.KINDS[name].title] = version
    with bench(plan) as run:
        result.placement = run.cores.describe()
        run.prepare(names)
        result.titles = {each.name: each.title for each in [run.direct, *run.targets]}
        if "startup" in options.only:
            result.tables.append(run.start_up())
        run.start()
        if "rest" in options.only:
            result.tables.append(run.rest())
        for scenario in scenarios.scenarios(plan, set(options.only)):
            result.tables.append(run.load(scenario))


def measure_beside_others(
    options: argparse.Namespace, plan: Plan, result: report.Report
) -> None:
    """Fill *result*, and note how much other work the machine did meanwhile."""
    foreign, started_at = machine.foreign_cpu_seconds(), time.monotonic()
    measure(options, plan, result)
    foreign = machine.foreign_cpu_seconds() - foreign
    share = foreign / (time.monotonic() - started_at)
    result.disturbance_percent = max(0.0, 100 * share)


def names_from(allowed: Sequence[str]) -> Any:
    """Return a parser of comma-separated names, each one of *allowed*."""

    def parse(raw: str) -> list[str]:
        names = [name.strip() for name in raw.split(",") if name.strip()]
        unknown = [name for name in names if name not in allowed]
        if unknown:
            raise argparse.ArgumentTypeError(
                f"{', '.join(unknown)} is not one of {', '.join(allowed)}"
            )
        return names

    return parse


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./run bench",
        description="Measure what the gateway costs, beside a bare relay and nginx.",
    )
    parser.add_argument(
        "--quick", action="store_true", help="short rounds; under a minute"
    )
    parser.add_argument(
        "--only",
        type=names_from(PARTS),
        default=list(PARTS),
        metavar="PARTS",
        help=f"comma-separated, of {', '.join(PARTS)}",
    )
    parser.add_argument(
        "--targets",
        type=names_from(tuple(targets.KINDS)),
        metavar="NAMES",
        help=f"comma-separated, of {', '.join(targets.KINDS)}; "
        "all that are installed, or with --quick all but litellm",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the report")
    parser.add_argument(
        "--assert-goals", action="store_true", help="exit with 1 if a goal is not met"
    )
    return parser


def write_files(options: argparse.Namespace, result: report.Report) -> None:
    if options.json:
        text = json.dumps(dataclasses.asdict(result), indent=2, ensure_ascii=False)
        options.json.write_text(text + "\n")
    if options.write:
        options.write.write_text(report.render_page(result, PAGE.read_text()))


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    options = arguments().parse_args(argv)
    if sys.platform != "linux":
        say("The benchmark reads /proc and needs Linux.")
        return 2
    end_cleanly_when_told()
    # A proxy holds two connections for each stream; 1,024 files, a usual default,
    # would end the run with 500 streams.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(OPEN_FILES, hard), hard))
    result = report.Report(
        command=shlex.join(["./run", "bench", *argv]),
        date=datetime.now(UTC).date().isoformat(),
        machine=machine.describe(),
        placement="",
        titles={},
    )
    try:
        measure_beside_others(options, QUICK if options.quick else Plan(), result)
    except (LoadError, ProcessError) as error:
        say(f"The benchmark failed: {error}")
        return 1
    except KeyboardInterrupt:
        say("Stopped; everything it had started is ended.")
        return 130
    write_files(options, result)
    print(report.render_terminal(result))
    if options.assert_goals and result.missed_goals():
        return 1
    return 1 if result.has_failed else 0


if __name__ == "__main__":
    sys.exit(main())
