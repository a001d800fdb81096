"""SLURM's own daemons on this machine: two nodes in network, mount and process namespaces that end with the test.

The nodes have addresses of their own on the loopback interface of the new network namespace, which no other machine
reaches. Needs root and Debian's packages slurmctld, slurmd, slurm-client and munge.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "scontrol", "munged", "unshare", "nsenter", "ip")
LONG = 240.0
"""Seconds after which something counts as hanging."""

BEGIN = """
set -e
hostname node1
ip link set lo up
ip addr add 10.0.0.1/32 dev lo  # getaddrinfo resolves no names where all addresses begin with 127
ip addr add 10.0.0.2/32 dev lo
mount --bind hosts /etc/hosts
munged --force --socket=munge.socket --key-file=munge.key --log-file=munge.log --pid-file=munge.pid --seed-file=munge.seed
slurmctld -c
slurmd -c -N node1
slurmd -c -N node2
sleep infinity &
wait  # bash stays as process 1 of the namespace, and collects processes that have ended
"""

CONFIGURATION = """
ClusterName=test
SlurmctldHost=node1
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=node1 NodeHostname=node1 NodeAddr=10.0.0.1 Port=7818 CPUs=64 Gres=gpu:4
NodeName=node2 NodeHostname=node1 NodeAddr=10.0.0.2 Port=7819 CPUs=64 Gres=gpu:4
PartitionName=all Nodes=node1,node2 Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why SLURM cannot run here; "" if it can."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)} not found: apt-get install slurmctld slurmd slurm-client munge iproute2 util-linux"
    tried = subprocess.run(["unshare", *SPACES, "true"], capture_output=True, text=True, check=False)
    return "" if tried.returncode == 0 else f"namespaces cannot be made here: {tried.stderr.strip()}"


SPACES = ("--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")


class SlurmCluster:
    """Commands on the running cluster."""

    def __init__(self, folder: Path, process: int, env: dict[str, str]) -> None:
        self.folder, self.process, self.env = folder, process, env

    def call(self, *words: str) -> str:
        """The output of a command on node1."""
        inside = ["nsenter", f"--target={self.process}", "--net", "--mount", "--uts", "--pid", f"--wd={self.folder}"]
        done = subprocess.run([*inside, *words], capture_output=True, text=True, env=self.env, check=False)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}\n{self.logs()}"
        return done.stdout

    def submit(self, *words: str) -> str:
        """The ID of a new job."""
        return self.call("sbatch", "--parsable", *words).strip()

    def jobs(self, identity: str) -> list[dict[str, str]]:
        """What SLURM knows of a job or of the tasks of a job array."""
        lines = self.call("scontrol", "--oneliner", "show", "job", identity).splitlines()
        return [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]

    def logs(self) -> str:
        """The ends of the logs and of the output of the jobs."""
        files = [*self.folder.glob("*.log"), *self.folder.glob("*.out")]
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')[-3000:]}" for file in files)

    def until(self, there: Callable[[], bool]) -> None:
        """Wait for something."""
        last = time.monotonic() + LONG
        while not there():
            assert time.monotonic() < last, self.call("scontrol", "show", "job") + self.logs()
            time.sleep(0.2)


@contextmanager
def slurm_cluster(folder: Path, **env: str) -> Iterator[SlurmCluster]:
    """A cluster of two nodes, each with four GPUs that do not exist; its files are in the folder."""
    folder.mkdir(parents=True)
    (folder / "state").mkdir()
    (folder / "hosts").write_text("127.0.0.1 localhost\n10.0.0.1 node1\n10.0.0.2 node2\n")
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder))
    (folder / "gres.conf").write_text(
        "".join(f"Name=gpu File=/dev/{name}\n" for name in ("null", "zero", "full", "random"))
    )
    env = {**os.environ, "SLURM_CONF": f"{folder}/slurm.conf", **env}
    with (folder / "begin.log").open("w") as said:
        begin = ["unshare", *SPACES, "bash", "-c", BEGIN]
        outer = subprocess.Popen(begin, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        try:
            children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
            while not children.read_text().split():
                time.sleep(0.01)
            cluster = SlurmCluster(folder, int(children.read_text().split()[0]), env)
            cluster.until(lambda: ready(cluster))
            yield cluster
        finally:
            outer.kill()  # and with it, all processes of the namespace
            outer.wait()


def ready(cluster: SlurmCluster) -> bool:
    """Whether both nodes wait for jobs."""
    if not all((cluster.folder / f"slurmd-node{number}.pid").exists() for number in (1, 2)):
        return False
    return cluster.call("sinfo", "--noheader", "--Node", "--format=%T").split() == ["idle", "idle"]
