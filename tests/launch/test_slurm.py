"""launch/slurm.sbatch, with srun and scontrol that only pretend, and on a real Slurm where there is one."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pretended import BERTJAX, Place
from processes import ROOT, Run, recipe
from small import tiny
from test_processes import assert_same_bits

from bertjax.config.recipe import to_dict
from bertjax.steps import numbers
from bertjax.train import metrics

JOB = {"SLURM_JOB_ID": "17", "SLURM_NTASKS": "8"}


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path, "srun", "scontrol")


@pytest.mark.parametrize(
    ("end", "restarts", "code", "requeued"),
    [
        (0, 0, 0, False),
        (75, 0, 75, True),
        (75, 99, 75, True),
        (6, 0, 6, True),
        (6, 10, 6, False),
        ("kill", 0, 137, True),
        *((code, 0, code, False) for code in (1, 2, 3, 4, 5, 7, 8)),
    ],
)
def test_a_job_is_put_back_where_it_is_worth_it(place, end, restarts, code, requeued):
    place.plan(end)
    job = {**JOB, "SLURM_SUBMIT_DIR": str(place.repository), "SLURM_RESTART_COUNT": str(restarts)}
    run = place.run("launch/slurm.sbatch", "pretrain", "--workdir=/s/a b,*", **job)
    assert run.returncode == code, run.stderr
    assert place.lines("calls") == (["scontrol requeue 17"] if requeued else [])
    assert place.records("arguments") == [["pretrain", "--workdir=/s/a b,*"]]
    assert place.records("environment") == [["BERTJAX_EXPECT_DEVICES=8"]]


def test_a_preemption_that_reaches_the_shell_too_puts_the_job_back(place):
    place.plan("wait")
    run = place.start("launch/slurm.sbatch", "pretrain", SLURM_SUBMIT_DIR=str(place.repository), **JOB)
    place.until_it_waits()
    children = subprocess.run(["pgrep", "-P", str(run.pid)], capture_output=True, text=True, check=True).stdout.split()
    run.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    assert run.poll() is None
    grandchildren = subprocess.run(["pgrep", "-P", children[0]], capture_output=True, text=True, check=True).stdout
    for pid in grandchildren.split():
        os.kill(int(pid), signal.SIGTERM)
    run.communicate(timeout=60)
    assert (run.returncode, place.lines("calls")) == (75, ["scontrol requeue 17"])


def test_outside_of_a_job_it_says_how_to_submit(place):
    run = place.run("launch/slurm.sbatch", "pretrain", "--workdir=a b")
    assert run.returncode == 2
    assert "sbatch launch/slurm.sbatch pretrain '--workdir=a b'" in run.stderr


CONFIG = """
ClusterName=bertjax
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs=2
PartitionName=main Nodes={host} Default=YES
"""
MISSING = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(name)]


@pytest.fixture
def slurm(tmp_path):
    """A cluster of this machine alone, on ports and with a key of its own: the environment of its commands."""
    ports = []
    for _ in range(2):
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            ports.append(found.getsockname()[1])
    root = tmp_path / "slurm"
    for name in ("state", "spool"):
        (root / name).mkdir(parents=True)
    root.chmod(0o755)
    key = root / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    (root / "slurm.conf").write_text(CONFIG.format(root=root, host=socket.gethostname(), ports=ports))
    environment = {**os.environ, "SLURM_CONF": str(root / "slurm.conf")}
    files = [f"--key-file={key}", f"--socket={root}/munge.socket", f"--pid-file={root}/munged.pid"]
    files += [f"--log-file={root}/munged.log", f"--seed-file={root}/munged.seed"]
    daemons = [["munged", "--force", "--foreground", *files], ["slurmctld", "-D"], ["slurmd", "-D"]]
    started = []
    try:
        for command in daemons:
            with (root / f"{command[0]}.out").open("w") as out:
                started.append(subprocess.Popen(command, env=environment, stdout=out, stderr=out))
            time.sleep(1)
        for _ in range(60):
            state = subprocess.run(["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True)
            if state.stdout.strip() == "idle":
                break
            time.sleep(0.5)
        else:
            pytest.fail("\n".join(path.read_text()[-2000:] for path in sorted(root.glob("*.log"))))
        yield environment
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(20)


@pytest.mark.long
@pytest.mark.skipif(bool(MISSING), reason=f"no {', '.join(MISSING)}: Debian's slurm-wlm and munge have them")
@pytest.mark.skipif(os.geteuid() != 0, reason="Slurm's daemons run as root")
def test_a_real_slurm_puts_the_job_back(slurm, tmp_path):
    """Two tasks get SIGTERM, as at the end of their time, save and end with 75: the job runs again by itself. Then they
    end with a code that would only come again: it stays down.
    """
    place = Place(tmp_path / "place")
    fake = place.bin / "bertjax"
    fake.write_text(BERTJAX.replace("BERTJAX_PROCESS", "SLURM_PROCID"))
    place.plan("wait", 3, process=0)
    place.plan("wait", 3, process=1)
    environment = {**slurm, "FAKES": str(place.root), "BERTJAX": str(fake)}

    def slurm_says(*command):
        run = subprocess.run(command, env=environment, cwd=place.repository, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        return run.stdout.strip()

    size = ["--ntasks-per-node=2", "--gpus-per-node=0", "--cpus-per-task=1", "--time=5"]
    job = slurm_says("sbatch", "--parsable", *size, "launch/slurm.sbatch", "pretrain", "--workdir=/s/a b,*")
    log = place.repository / f"bertjax-{job}.log"
    place.until(lambda: log.exists() and log.read_text().count("begun") == 2, 60)
    slurm_says("scancel", "--signal=TERM", job)  # to the tasks, as --signal=TERM@60 does
    # Slurm holds a job back for two minutes after it was requeued; this releases it at once.
    place.until(lambda: "Restarts=1" in slurm_says("scontrol", "show", "job", job), 60)
    place.until(lambda: "JobState=PENDING" in slurm_says("scontrol", "show", "job", job), 60)
    slurm_says("scontrol", "update", f"job={job}", "StartTime=now")
    place.until(lambda: "JobState=FAILED" in slurm_says("scontrol", "show", "job", job), 180)
    shown = slurm_says("scontrol", "show", "job", job)
    assert "Restarts=1 " in shown
    assert "ExitCode=3:0" in shown
    assert log.read_text().count("saved") == 2
    for process in (0, 1):
        assert place.records(f"arguments{process}") == [["pretrain", "--workdir=/s/a b,*"]] * 2
        assert place.records(f"environment{process}") == [["BERTJAX_EXPECT_DEVICES=2"]] * 2


@pytest.mark.long
@pytest.mark.skipif(bool(MISSING), reason=f"no {', '.join(MISSING)}: Debian's slurm-wlm and munge have them")
@pytest.mark.skipif(os.geteuid() != 0, reason="Slurm's daemons run as root")
def test_a_run_that_a_real_slurm_preempts_twice_ends_in_the_same_bits(slurm, inputs, tmp_path):
    """Two tasks train and find each other by what Slurm tells them. The job is warned as at the end of its time, and
    later put back as for a job that matters more.
    """
    run = {"steps": 300, "eval_every": 0, "save_every": 50, "keep": 9}
    config = tiny(model={"num_layers": 1}, data=inputs, mesh={"data": 2}, run=run)
    file = recipe(tmp_path / "small.py", to_dict(config))
    whole, directory = tmp_path / "whole", tmp_path / "run"
    code, lines = Run("pretrain", f"--config={file}", f"--workdir={whole}", processes=2, devices=1).end()
    assert code == 0, lines
    environment = {**slurm, "BERTJAX": str(Path(sys.executable).with_name("bertjax")), "JAX_PLATFORMS": "cpu"}
    environment |= {"PYTHONPATH": str(ROOT), "XLA_FLAGS": "--xla_backend_optimization_level=0"}

    def says(*command):
        return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    def until(true, timeout=240):
        end = time.monotonic() + timeout
        while not true():
            assert time.monotonic() < end, out.read_text()[-3000:] + says("scontrol", "show", "job", job)
            time.sleep(0.1)

    def step():
        return max((line["step"] for line in metrics.read(directory / metrics.METRICS)), default=0)

    size = ["--ntasks-per-node=2", "--gpus-per-node=0", "--cpus-per-task=1", "--time=20"]
    out = tmp_path / "job.log"
    command = ["launch/slurm.sbatch", "pretrain", f"--config={file}", f"--workdir={directory}"]
    job = says("sbatch", "--parsable", f"--output={out}", *size, *command).strip()
    until(lambda: step() >= 20)
    says("scancel", "--signal=TERM", job)
    until(lambda: "JobState=PENDING" in says("scontrol", "show", "job", job))
    saved = numbers(directory / "checkpoints")[-1]
    assert 20 <= saved < 300 and f"step {saved} is saved" in out.read_text()
    says("scontrol", "update", f"job={job}", "StartTime=now")
    until(lambda: step() >= saved + 20)
    says("scontrol", "requeue", job)
    until(lambda: "JobState=PENDING" in says("scontrol", "show", "job", job))
    says("scontrol", "update", f"job={job}", "StartTime=now")
    until(lambda: "JobState=COMPLETED" in says("scontrol", "show", "job", job))
    assert "Restarts=2 " in says("scontrol", "show", "job", job)
    assert "2 processes, 2 devices" in out.read_text() and "Traceback" not in out.read_text()
    assert_same_bits(config, whole, directory)
