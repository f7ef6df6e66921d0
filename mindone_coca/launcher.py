"""What the environment says of the processes that were started together, without MindSpore.

msrun, mpirun, a rank table, ModelArts, Slurm and torchrun each set variables of their own. Whether MindSpore can join
the processes depends on the device; whoever takes part without having joined would be one of several ranks 0 that write
one folder.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mindone_coca.errors import InputError

RANK_TABLES = ("RANK_TABLE_FILE", "MINDSPORE_HCCL_CONFIG_PATH")
# Variables by which MindSpore joins nothing: how many processes, and which of them this is. Slurm's are those of a step
# that srun started, which a batch script itself has not; PMI's are those of other kinds of MPI.
NOT_JOINED = {
    "RANK_SIZE": "RANK_ID",
    "MA_NUM_HOSTS": "RANK_ID",
    "WORLD_SIZE": "RANK",
    "SLURM_STEP_NUM_TASKS": "SLURM_PROCID",
    "PMI_SIZE": "PMI_RANK",
}
# What MindSpore's processes without msrun have to be told besides their number.
CLUSTER = ("MS_ROLE", "MS_SCHED_HOST", "MS_SCHED_PORT")


@dataclass(frozen=True)
class Launch:
    """Processes that were started together.

    Attributes:
        variable: what says so, and by it who started them.
        size: how many they are. rank: this one's number from 0 on, None where nothing tells.
        rank_variable: what would tell.
    """

    variable: str
    size: int
    rank: int | None
    rank_variable: str = "RANK_ID"

    @property
    def promise(self) -> str:
        """What its variable says."""
        return f"{self.variable} promises {self.size} processes"

    def refusal(self, target: str, environment: Mapping[str, str]) -> str | None:
        """Why MindSpore cannot join them on a device; None where it can."""
        several = self.promise
        if self.variable == "MS_WORKER_NUM":
            missing = [name for name in CLUSTER if not environment.get(name)]
            return f"{several}, but {', '.join(missing)} is not set; start them by msrun" if missing else None
        if self.variable in NOT_JOINED:
            if environment.get("MS_SIMULATION_LEVEL") and target != "CPU":
                return None  # one process stands for all, without devices
            return f"{several}, but nothing by which they could be joined; start them by msrun, or unset it"
        if target == "CPU":
            return f"{several}, which MindSpore does not join on the CPU; start them by msrun"
        if self.variable in RANK_TABLES and self.rank is None:
            return f"{several}, but {self.rank_variable} is not set; it is this process's number from 0 on"
        return None


def find_launch(environment: Mapping[str, str]) -> Launch | None:
    """The processes started together with this one; None where it is alone. Raises InputError for a variable that is
    no number, a number that is none of them, or a rank table that cannot be read or does not fit the variables."""
    workers, from_mpi = _number(environment, "MS_WORKER_NUM"), _number(environment, "OMPI_COMM_WORLD_SIZE")
    if workers is not None and workers > 1:
        return _launch("MS_WORKER_NUM", workers, "RANK_ID", environment)
    if from_mpi is not None and from_mpi > 1:
        return _launch("OMPI_COMM_WORLD_SIZE", from_mpi, "OMPI_COMM_WORLD_RANK", environment)
    for variable in RANK_TABLES:
        if environment.get(variable):
            said = _number(environment, "RANK_SIZE")
            size = said if said == 1 else _devices(variable, Path(environment[variable]), said)
            return _launch(variable, size, "RANK_ID", environment) if size > 1 else None
    for variable, rank_variable in NOT_JOINED.items():
        size = _number(environment, variable) or 1
        if size > 1:
            return _launch(variable, size, rank_variable, environment)
    return None


def _launch(variable: str, size: int, rank_variable: str, environment: Mapping[str, str]) -> Launch:
    launch = Launch(variable, size, _number(environment, rank_variable), rank_variable)
    if launch.rank is not None and launch.rank >= size:
        raise InputError(f"{rank_variable} {launch.rank}: {launch.promise} only, numbered from 0 on")
    return launch


def own_device_id(environment: Mapping[str, str]) -> int | None:
    """The device that a launcher gave to this process; None where it says nothing."""
    return _number(environment, "DEVICE_ID")


def _number(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name, "")
    if text and not text.isdecimal():
        raise InputError(f"{name}: must be a whole number from 0 on, got {text!r}")
    return int(text) if text else None


def _devices(variable: str, path: Path, size: int | None) -> int:
    """How many devices a rank table lists, which are numbered from 0 on; `size` is what RANK_SIZE says."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        if "group_list" in table:  # the older form, in which devices are numbered as they stand
            instances = [instance for group in table["group_list"] for instance in group["instance_list"]]
            ranks = [*range(sum(len(instance["devices"]) for instance in instances))]
        else:
            ranks = sorted(int(device["rank_id"]) for server in table["server_list"] for device in server["device"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{variable}: {path}: no rank table can be read there ({error!r})") from None
    if not ranks or ranks != [*range(len(ranks))]:
        raise InputError(f"{variable}: {path}: its devices' rank_id must be 0, 1 and so on, each once, got {ranks}")
    if size not in (None, len(ranks)):
        raise InputError(f"{variable}: {path}: lists {len(ranks)} devices, but RANK_SIZE is {size}")
    return len(ranks)
