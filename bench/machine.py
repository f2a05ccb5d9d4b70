"""Where figures were taken: without this, they cannot be compared with others."""

import os
import platform
import resource
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "django",
    "uvicorn",
    "uvloop",
    "httptools",
    "httpx",
    "aiohttp",
    "msgspec",
)


def cpu_model(cpuinfo: str) -> str:
    """Find the processor's name in the text of /proc/cpuinfo."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in {"model name", "Model"}:
            return value.strip()
    return platform.machine()


def package_versions(names: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Look up versions; what is not installed is left out."""
    installed = {}
    for name in names:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def busy_ticks(stat: str) -> int:
    """Read from the text of /proc/stat how long all cores together were not idle."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(
        int, stat.splitlines()[0].split()[1:9]
    )
    return user + nice + system + irq + softirq + steal


def foreign_cpu_seconds() -> float:
    """Read the CPU time so far that neither we nor our ended children have used.

    The growth between two readings tells how much other work disturbed a run.
    """
    ours = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        ours += usage.ru_utime + usage.ru_stime
    busy = busy_ticks(Path("/proc/stat").read_text())
    return busy / os.sysconf("SC_CLK_TCK") - ours


def describe() -> dict[str, str]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    versions = package_versions().items()
    return {
        "Processor": cpu_model(Path("/proc/cpuinfo").read_text()),
        "Cores": str(os.cpu_count()),
        "Memory": f"{memory / 2**30:.1f} GiB",
        "System": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "Packages": ", ".join(f"{name} {version}" for name, version in versions),
    }
