"""Results of benchmarks as JSON: sections of rows, each with the day and the commit of its run."""

import datetime
import json
import subprocess
from pathlib import Path

# For the end of a script that runs in a process of its own: prints its peak memory in bytes. Not by getrusage, which
# begins with the peak of the process that started it.
PRINT_PEAK = """
import re
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024, flush=True)
"""


def keep(path: Path, section: str, rows: list[dict]) -> None:
    """Put a section's rows into a file, in the place of those of an earlier run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(path.read_text()) if path.exists() else {}
    results[section] = {"date": str(datetime.date.today()), "commit": commit(), "rows": rows}
    path.write_text(json.dumps(results, indent=1) + "\n")


def commit() -> str:
    """The sources' commit, with a mark where they differ from it."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"
