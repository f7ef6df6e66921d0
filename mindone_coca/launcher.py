"""What the environment says of the processes that were started together, without MindSpore.

msrun, mpirun, a rank table and ModelArts each set variables of their own. Whether MindSpore can join the processes
depends on the device; whoever takes part without having joined would be one of several ranks 0 that write one folder.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mindone_coca.errors import InputError

RANK_TABLES = ("RANK_TABLE_FILE", "MINDSPORE_HCCL_CONFIG_PATH")
# What MindSpore's processes without msrun have to be told besides their number.
CLUSTER = ("MS_ROLE", "MS_SCHED_HOST", "MS_SCHED_PORT")


@dataclass(frozen=True)
class Launch:
    """Processes that were started together.

    Attributes:
        variable: what says so, and by it who started them.
        size: how many they are. rank: this one's number from 0 on, None where nothing tells.
    """

    variable: str
    size: int
    rank: int | None

    def refusal(self, target: str, environment: Mapping[str, str]) -> str | None:
        """Why MindSpore cannot join them on a device; None where it can."""
        several = f"{self.variable} promises {self.size} processes"
        if self.variable == "MS_WORKER_NUM":
            missing = [name for name in CLUSTER if not environment.get(name)]
            return f"{several}, but {', '.join(missing)} is not set; start them by msrun" if missing else None
        if self.variable in ("RANK_SIZE", "MA_NUM_HOSTS"):
            if environment.get("MS_SIMULATION_LEVEL") and target != "CPU":
                return None  # one process stands for all, without devices
            return f"{several}, but nothing by which they could be joined; start them by msrun, or unset it"
        if target == "CPU":
            return f"{several}, which MindSpore does not join on the CPU; start them by msrun"
        if self.variable in RANK_TABLES and self.rank is None:
            return f"{several}, but RANK_ID is not set; it is this process's number from 0 on"
        return None


def find_launch(environment: Mapping[str, str]) -> Launch | None:
    """The processes started together with this one; None where it is alone. Raises InputError for a variable that is
    no number, or a rank table that cannot be read."""
    rank = _number(environment, "RANK_ID")
    workers, from_mpi = _number(environment, "MS_WORKER_NUM"), _number(environment, "OMPI_COMM_WORLD_SIZE")
    if workers is not None and workers > 1:
        return Launch("MS_WORKER_NUM", workers, rank)
    if from_mpi is not None and from_mpi > 1:
        return Launch("OMPI_COMM_WORLD_SIZE", from_mpi, _number(environment, "OMPI_COMM_WORLD_RANK"))
    for variable in RANK_TABLES:
        if environment.get(variable):
            size = _number(environment, "RANK_SIZE") or _devices(variable, Path(environment[variable]))
            return Launch(variable, size, rank) if size > 1 else None
    for variable in ("RANK_SIZE", "MA_NUM_HOSTS"):
        size = _number(environment, variable) or 1
        if size > 1:
            return Launch(variable, size, rank)
    return None


def own_device_id(environment: Mapping[str, str]) -> int | None:
    """The device that a launcher gave to this process; None where it says nothing."""
    return _number(environment, "DEVICE_ID")


def _number(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name, "")
    if text and not text.isdecimal():
        raise InputError(f"{name}: must be a whole number from 0 on, got {text!r}")
    return int(text) if text else None


def _devices(variable: str, path: Path) -> int:
    """How many devices a rank table lists."""
    try:
        servers = json.loads(path.read_text(encoding="utf-8"))["server_list"]
        return sum(len(server["device"]) for server in servers)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{variable}: {path}: no rank table can be read there ({error!r})") from None
