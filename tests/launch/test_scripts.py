"""What the scripts of launch/ would run, byte for byte, and what they refuse; their files by shellcheck, YAML and XLA.

BERTJAX_WRITE_GOLDEN=1 writes the expected output anew; read the difference before it is committed.
"""

import importlib.util
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pretended import ROOT, Place, worth_a_restart

from bertjax.cli.commands import COMMANDS

LAUNCH = ROOT / "launch"
GOLDEN = Path(__file__).parent / "golden"
PRETRAIN = "pretrain --workdir=/share/bert --config=bert:base '--config.data.source=/share/my text/*.txt,/share/more'"
TPU = "launch/tpu_vm.sh --dry-run {} tiny --zone=us-west4-a"
SHARE = "--nfs=10.0.0.2:/share --mount=/mnt/share"
JOBSET = "launch/gke_jobset.sh --dry-run {} tiny"
IMAGE = "--image=europe-docker.pkg.dev/me/images/bertjax:1 --claim=share"

CASES = {
    "run": f"launch/run.sh --dry-run --environment=launch/tpu.env --max-restarts=3 {PRETRAIN}",
    "local": f"launch/local.sh --dry-run --processes 2 --devices 4 --max-restarts 3 {PRETRAIN}",
    "local_cpus": f"launch/local.sh --dry-run --processes=2 --grace=5 {PRETRAIN}",
    "gpu_node": f"launch/gpu_node.sh --dry-run --gpus=8 --max-restarts=3 {PRETRAIN}",
    "gpu_node_per_gpu": f"launch/gpu_node.sh --dry-run --gpus=2 --per gpu {PRETRAIN}",
    "gpu_node_hosts": "launch/gpu_node.sh --dry-run --gpus=8 --hosts=2 --host=1 --coordinator=10.0.0.5:8476 "
    + PRETRAIN,
    "gpu_node_hosts_per_gpu": "launch/gpu_node.sh --dry-run --gpus=2 --per=gpu --hosts=2 --host=1 "
    f"--coordinator=10.0.0.5:8476 {PRETRAIN}",
    "worker_start": f"launch/worker.sh --dry-run start tiny launch/run.sh {PRETRAIN}",
    "worker_status": "launch/worker.sh --dry-run status tiny",
    "worker_logs": "launch/worker.sh --dry-run logs tiny --lines=5 --follow",
    "worker_stop": "launch/worker.sh --dry-run stop tiny",
    "install": f"launch/install.sh --dry-run --device=cuda13 {SHARE}",
    "tpu_create": TPU.format("create") + " --type=v5litepod-16 --project=mine",
    "tpu_create_spot": TPU.format("create") + " --type=v6e-8 --spot",
    "tpu_install": TPU.format("install") + f" {SHARE}",
    "tpu_start": TPU.format("start") + f" --type=v5litepod-16 {PRETRAIN}",
    "tpu_start_alone": TPU.format("start") + " --worker=0 prepare --workdir=/share/bert",
    "tpu_status": TPU.format("status"),
    "tpu_logs": TPU.format("logs") + " --worker=3 --follow",
    "tpu_stop": TPU.format("stop"),
    "tpu_delete": TPU.format("delete") + " --yes",
    "tpu_keep": TPU.format("keep") + f" --type=v5litepod-16 --spot {SHARE} {PRETRAIN}",
    "slurm": f"launch/slurm.sbatch --dry-run {PRETRAIN}",
    "jobset_apply": JOBSET.format("apply") + f" {IMAGE} --topology=2x4 --spot --namespace=team {PRETRAIN}",
    "jobset_yaml": JOBSET.format("yaml") + f" {IMAGE} {PRETRAIN}",
    "jobset_status": JOBSET.format("status"),
    "jobset_logs": JOBSET.format("logs") + " --worker=1",
    "jobset_delete": JOBSET.format("delete") + " --yes",
}


@pytest.fixture
def place(tmp_path):
    place = Place(tmp_path)
    place.environment |= {"HOME": "/home/me", "HF_TOKEN": "canary"}
    del place.environment["BERTJAX"]
    return place


def files(place):
    return sorted(place.root.rglob("*"))


@pytest.mark.parametrize("name", CASES)
def test_what_would_run(place, name):
    """With none of the programs that would run, and nothing made."""
    before = files(place)
    run = place.run(*shlex.split(CASES[name]))
    assert (run.returncode, run.stderr) == (0, "")
    assert files(place) == before
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("BERTJAX_WRITE_GOLDEN"):
        golden.write_text(run.stdout)
    assert run.stdout == golden.read_text()
    for line in run.stdout.splitlines() if "jobset" not in name else ():
        assert line.startswith("#") or shlex.split(line), line


def test_every_expected_output_has_its_case():
    assert {path.stem for path in GOLDEN.iterdir()} == set(CASES)


def test_commands_of_bertjax_exist():
    """That the scripts, their heads and their files name."""
    found = set()
    for path in [*LAUNCH.iterdir(), *GOLDEN.iterdir()]:
        found |= set(
            re.findall(r"\b(?:bin/bertjax|COMMAND: ?'?|args: \[.*?\.env\", \")(?: |)([a-z]+)", path.read_text())
        )
    assert "pretrain" in found
    assert found <= {name.split()[0] for name in COMMANDS}


BAD_NAMES = ("Tiny", "tiny_1", "1tiny", "tiny-", "a" * 41, "a b", "a;b", "../a", "")


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize(
    "command", ["launch/worker.sh stop", "launch/tpu_vm.sh status --zone=z", "launch/gke_jobset.sh status"]
)
def test_a_name_that_is_none_is_refused(place, command, name):
    run = place.run(*command.split()[:2], name, *command.split()[2:])
    assert run.returncode == 2
    assert f"'{name}' is no name" in run.stderr


@pytest.mark.parametrize(
    ("command", "program"),
    [
        ("launch/tpu_vm.sh status tiny --zone=z", "gcloud"),
        ("launch/gke_jobset.sh status tiny", "kubectl"),
        ("launch/gpu_node.sh pretrain", "nvidia-smi"),
        ("launch/slurm.sbatch pretrain", "srun"),
    ],
)
def test_a_program_that_is_missing_is_named(place, command, program):
    run = place.run(*command.split(), SLURM_JOB_ID="1", SLURM_NTASKS="1", SLURM_SUBMIT_DIR=str(place.repository))
    assert run.returncode == 2
    assert run.stderr == f"launch: {program} is not installed or not on PATH\n"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("launch/run.sh", "no command"),
        ("launch/run.sh --max-restart=1 pretrain", "--max-restart is no option"),
        ("launch/run.sh --max-restarts=many pretrain", "not a whole number"),
        ("launch/run.sh --max-restarts", "needs a value"),
        ("launch/run.sh --environment=launch/npu.env pretrain", "cannot be read"),
        ("launch/gpu_node.sh --gpus=8 --hosts=2 pretrain", "--coordinator=HOST:PORT"),
        ("launch/gpu_node.sh --gpus=8 --hosts=2 --host=2 pretrain", "counted from 0 to 1"),
        ("launch/gpu_node.sh --gpus=0 pretrain", "no GPU"),
        ("launch/gpu_node.sh --gpus=8 --per=node pretrain", "neither host nor gpu"),
        ("launch/gpu_node.sh --dry-run pretrain", "--gpus=N"),
        ("launch/worker.sh run tiny", "none of start, status"),
        ("launch/tpu_vm.sh create tiny --type=v5litepod-16", "--zone is missing"),
        ("launch/tpu_vm.sh --dry-run create tiny --zone=z", "--type is missing"),
        ("launch/tpu_vm.sh --dry-run create tiny --zone=z --type=h100-8", "--version"),
        ("launch/tpu_vm.sh --dry-run delete tiny --zone=z", "--yes"),
        ("launch/tpu_vm.sh --dry-run start tiny --zone=z", "no command"),
        ("launch/gke_jobset.sh delete --dry-run tiny", "--yes"),
        (
            "launch/gke_jobset.sh yaml tiny --image=i --claim=c --topology=4x4 --chips-per-host=3 pretrain",
            "do not make",
        ),
        ("launch/gke_jobset.sh yaml tiny --image=i --claim=c --topology=4 pretrain", "not like 4x4"),
        ("launch/gke_jobset.sh yaml tiny --claim=c pretrain", "--image"),
        ("launch/install.sh --device=npu", "none of tpu"),
        ("launch/install.sh --nfs=host:/x --mount=relative", "no absolute path"),
    ],
)
def test_what_cannot_work_is_one_line_and_code_2(place, command, said):
    run = place.run(*command.split())
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    assert line.startswith("launch: ")
    assert said in line


SHELL = sorted({*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.env"), *LAUNCH.glob("*.sbatch")})
SHELLCHECK = shutil.which("shellcheck") or shutil.which("shellcheck", path=Path(sys.executable).parent)


def test_shellcheck_finds_nothing(tmp_path):
    if not SHELLCHECK:
        pytest.skip("shellcheck is not installed; the [dev] extra has it")
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    for part in ("setup", "run"):
        (tmp_path / part).write_text(task[part])
    # words: made by eval, which is what COMMAND is for.
    command = [SHELLCHECK, "--external-sources", "--shell=bash", *SHELL]
    for checked in (command, [SHELLCHECK, "--shell=bash", "--exclude=SC2154", tmp_path / "setup", tmp_path / "run"]):
        run = subprocess.run(checked, cwd=ROOT, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("path", [p for p in SHELL if p.suffix != ".env"], ids=lambda p: p.name)
def test_a_script_runs_or_is_sourced_and_says_how(path):
    text = path.read_text()
    sourced = text.startswith("# Sourced")
    assert sourced or text.startswith("#!/usr/bin/env bash\n# ")
    assert bool(path.stat().st_mode & stat.S_IXUSR) != sourced


def jobset(place, *flags):
    run = place.run(
        "launch/gke_jobset.sh", "yaml", "tiny", "--image=i", "--claim=c", *flags, "pretrain", "--workdir=/s/x"
    )
    assert run.returncode == 0, run.stderr
    return yaml.safe_load(run.stdout)


def test_the_jobset_in_the_repository_is_what_is_made(place):
    image = "--image=REGION-docker.pkg.dev/PROJECT/REPOSITORY/bertjax"
    words = ["pretrain", "--workdir=/share/bert-base", "--config=bert:base", "--config.data.source=/share/text/*.txt"]
    run = place.run("launch/gke_jobset.sh", "yaml", "pretrain", image, "--claim=share", *words)
    assert run.stdout == (LAUNCH / "gke_jobset.yaml").read_text()


def test_a_jobset_starts_again_on_the_same_codes(place):
    made = jobset(place)
    job = made["spec"]["replicatedJobs"][0]["template"]["spec"]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["operator"]) == ("FailJob", "NotIn")
    assert set(rule["onExitCodes"]["values"]) == {code for code in worth_a_restart() if code < 160}
    assert rule["onExitCodes"]["containerName"] == job["template"]["spec"]["containers"][0]["name"]
    assert job["backoffLimit"] == 0
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # podFailurePolicy must have it
    (final,) = made["spec"]["failurePolicy"]["rules"]
    assert final == {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    assert made["spec"]["failurePolicy"]["maxRestarts"] == 10


@pytest.mark.parametrize(
    ("flags", "hosts", "chips"), [((), 4, 16), (("--topology=2x2x4",), 4, 16), (("--topology=2x2",), 1, 4)]
)
def test_a_jobset_has_a_pod_for_each_host_of_the_slice(place, flags, hosts, chips):
    made = jobset(place, *flags)
    job = made["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert (made["apiVersion"], made["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert made["spec"]["network"] == {"enableDNSHostnames": True, "subdomain": "tiny"}
    assert job["completionMode"] == "Indexed"
    assert (job["parallelism"], job["completions"]) == (hosts, hosts)
    assert container["resources"]["limits"] == container["resources"]["requests"] == {"google.com/tpu": 4}
    assert container["env"] == [{"name": "BERTJAX_EXPECT_DEVICES", "value": str(chips)}]
    assert set(pod["nodeSelector"]) == {"cloud.google.com/gke-tpu-accelerator", "cloud.google.com/gke-tpu-topology"}
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == (flags or ("=4x4",))[0].split("=")[1]


def test_a_jobset_on_spot_tolerates_it(place):
    pod = jobset(place, "--spot")["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    assert pod["tolerations"][0]["key"] == "cloud.google.com/gke-spot"


def test_an_argument_reaches_the_pod_as_it_is(place):
    words = ["pretrain", "--workdir=/s/a b", "--config.data.source=\\ \"*.txt\",'x'", "$(HOME) #: {a}", "yes"]
    run = place.run("launch/gke_jobset.sh", "yaml", "tiny", "--image=i", "--claim=c", *words)
    job = yaml.safe_load(run.stdout)["spec"]["replicatedJobs"][0]["template"]["spec"]
    environment, *found = job["template"]["spec"]["containers"][0]["args"]
    assert environment == "--environment=launch/tpu.env"
    assert [word.replace("$$(", "$(") for word in found] == words  # Kubernetes reads $$( as $(
    assert "$$(HOME)" in found[3]


def test_skypilot_runs_its_command_on_the_gpus_of_each_host(place):
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    assert task["resources"]["job_recovery"]["recover_on_exit_codes"] == [75, 6]
    told = {
        "SKYPILOT_NUM_GPUS_PER_NODE": "2",
        "SKYPILOT_NUM_NODES": "2",
        "SKYPILOT_NODE_RANK": "1",
        "SKYPILOT_NODE_IPS": "10.0.0.5\n10.0.0.6",
        "COMMAND": "pretrain --workdir=/share/run '--config.data.source=/share/a b/*.txt'",
    }
    environment = {**place.environment, "BERTJAX": str(place.bin / "bertjax"), **told}
    subprocess.run(["bash", "-c", task["run"]], cwd=place.repository, env=environment, check=True)
    (words,) = place.records("arguments1")
    assert words == ["pretrain", "--workdir=/share/run", "--config.data.source=/share/a b/*.txt"]
    (found,) = place.records("environment1")
    assert {"BERTJAX_COORDINATOR=10.0.0.5:8476", "BERTJAX_PROCESSES=2", "BERTJAX_EXPECT_DEVICES=4"} < set(found)


def test_the_image_copies_what_is_there_and_starts_what_runs():
    text = (LAUNCH / "Dockerfile").read_text()
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [source for line in re.findall(r"^COPY (.*) \S+$", text, re.M) for source in line.split()]
    assert sorted(copied) == sorted(kept)
    assert all((ROOT / name).exists() for name in copied)
    (entry,) = re.findall(r'^ENTRYPOINT \["(.*)"\]$', text, re.M)
    assert os.access(ROOT / entry, os.X_OK)
    (constraints,) = re.findall(r"--constraint (\S+)", text)
    assert (ROOT / constraints).exists()


def flags(path):
    """The flags of an environment file, each with the comment above it."""
    found, reason = {}, ""
    for line in path.read_text().splitlines():
        if line.startswith("#"):
            reason += line[1:]
        elif not line:
            reason = ""
        for flag in re.findall(r"--xla\S+=\w+", line.split("#")[0]):
            found[flag] = reason
    return found


@pytest.mark.parametrize("name", ["tpu.env", "gpu.env"])
def test_each_flag_has_its_reason(name):
    found = flags(LAUNCH / name)
    assert found
    assert all(len(reason) > 60 for reason in found.values())


def test_xla_knows_the_flags_for_gpus():
    """It stops at one that it does not know, whatever the device."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join(flags(LAUNCH / "gpu.env"))}
    command = [sys.executable, "-c", "import jax; jax.devices()"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-500:]


def test_libtpu_knows_the_flags_for_tpus():
    spec = importlib.util.find_spec("libtpu")
    if spec is None:
        pytest.skip("libtpu is not installed; the extra [tpu] has it")
    library = (Path(spec.origin).parent / "libtpu.so").read_bytes()
    for flag in flags(LAUNCH / "tpu.env"):
        assert flag.removeprefix("--").split("=")[0].encode() in library, flag


GCLOUD = shutil.which("gcloud")


@pytest.mark.long
@pytest.mark.skipif(not GCLOUD, reason="gcloud is not installed")
def test_gcloud_knows_its_commands_and_flags():
    """By its help, which asks nobody."""
    used = {}
    for path in GOLDEN.glob("tpu_*.txt"):
        for line in path.read_text().splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["gcloud"]:
                named = {word.split("=")[0] for word in words if word.startswith("--")}
                used.setdefault(tuple(words[1:5]), set()).update(named - {"--project", "--format", "--quiet"})
    assert len(used) == 5
    for command, named in used.items():
        run = subprocess.run([GCLOUD, *command, "--help"], capture_output=True, text=True, check=True)
        text = re.sub(r".\x08|\x1b\[[0-9;]*m", "", run.stdout)
        assert not {flag for flag in named if not re.search(rf"{flag}\b", text)}, command
