"""A copy of launch/ with programs around it that only pretend: bertjax, gcloud, srun, scontrol, kubectl."""

import os
import shutil
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]

SYSTEM = (
    *("bash", "cat", "cp", "dirname", "env", "flock", "grep", "gzip", "head", "hostname", "id", "mkdir", "mountpoint"),
    *("mv", "rm", "sed", "seq", "setsid", "sleep", "sort", "tail", "tar", "touch", "wc"),
)
"""What every Linux has. Nothing else is on the PATH of a test, so that no real cloud is ever spoken to."""

BERTJAX = r"""#!/usr/bin/env bash
# Ends as the next line of its plan says: an exit code, `kill` (SIGKILL), or `wait` (for SIGTERM, then 75).
plan="$FAKES/plan${BERTJAX_PROCESS:-}"
exec 8>>"$FAKES/plan.lock"; flock 8
{ env | grep ^BERTJAX_ | sort; echo --; } >>"$FAKES/environment${BERTJAX_PROCESS:-}"
{ printf '%s\n' "$@"; echo --; } >>"$FAKES/arguments${BERTJAX_PROCESS:-}"
next=$(head -n 1 "$plan" 2>/dev/null); sed -i 1d "$plan" 2>/dev/null
flock -u 8; exec 8>&-
case "$next" in
kill) kill -KILL $$ ;;
wait) trap 'echo saved; exit 75' TERM; echo begun; touch "$FAKES/waits"; while :; do sleep 0.05; done ;;
*) exit "${next:-0}" ;;
esac
"""

GCLOUD = r"""#!/usr/bin/env bash
# Workers are directories of this machine: `create` makes them, `delete` ends what runs there and removes them, and
# `ssh` runs its command in each. `states` holds what `describe` says next; its last line stays.
printf '%s\n' "$*" >>"$FAKES/gcloud.log"
for word; do case "$word" in --command=*) command=${word#*=} ;; esac; done
workers=("$FAKES"/workers/*/)
case "$*" in
*"queued-resources describe"*made-by*) cat "$FAKES/label" ;;
*"queued-resources describe"*)
    state=$(head -n 1 "$FAKES/states")
    [ "$(wc -l <"$FAKES/states")" -le 1 ] || sed -i 1d "$FAKES/states"
    [ "$state" != ABSENT ] || { echo "ERROR: NOT_FOUND: no such thing" >&2; exit 1; }
    echo "$state" ;;
*"queued-resources create"*) mkdir -p "$FAKES"/workers/{0,1}; echo bertjax-launch >"$FAKES/label" ;;
*"queued-resources delete"*)
    for pid in "$FAKES"/workers/*/.bertjax/*/pid; do kill -KILL -- "-$(cat "$pid")"; done 2>/dev/null
    rm -r "$FAKES/workers" ;;
*"tpu-vm scp"*) for worker in "${workers[@]}"; do cp "$5" "$worker/bertjax.tar.gz"; done ;;
*launch/install.sh*) ;;
*"tpu-vm ssh"*)
    for worker in "${workers[@]}"; do (cd "$worker" && HOME="$worker" bash -c "$command") || failed=yes; done
    [ -z "${failed:-}" ] ;;
esac
"""

SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
"$@"
"""

LOGGED = """#!/usr/bin/env bash
echo "${0##*/} $*" >>"$FAKES/calls"
"""


def worth_a_restart() -> set[int]:
    """The exit codes that launch/common.sh starts again."""
    script = "source launch/common.sh; for i in {1..255}; do worth_a_restart $i && echo $i; done; true"
    run = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return {int(line) for line in run.stdout.split()}


class Place:
    """A directory with a copy of launch/, and the programs that are named on PATH."""

    def __init__(self, root: Path, *programs: str) -> None:
        self.root, self.bin = root, root / "bin"
        shutil.copytree(ROOT / "launch", root / "repository" / "launch")
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, root / "repository")
        for name in ("bertjax", "configs"):
            (root / "repository" / name).mkdir()
        self.bin.mkdir()
        for name in SYSTEM:
            (self.bin / name).symlink_to(shutil.which(name))
        texts = {"bertjax": BERTJAX, "gcloud": GCLOUD, "srun": SRUN}
        for name in ("bertjax", *programs):
            (self.bin / name).write_text(texts.get(name, LOGGED))
            (self.bin / name).chmod(0o755)
        self.environment = {
            "PATH": str(self.bin),
            "HOME": str(root / "home"),
            "USER": "me",
            "FAKES": str(root),
            "BERTJAX": str(self.bin / "bertjax"),
        }

    def plan(self, *ends: object, process: object = "") -> None:
        (self.root / f"plan{process}").write_text("".join(f"{end}\n" for end in ends))

    def start(self, *command: str, **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            [str(self.repository / command[0]), *command[1:]],
            cwd=self.root,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess:
        process = self.start(*command, **environment)
        try:
            out, err = process.communicate(timeout=120)
        finally:
            process.kill()
            process.wait()
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    @property
    def repository(self) -> Path:
        return self.root / "repository"

    def records(self, name: str) -> list[list[str]]:
        """What each call of bertjax wrote: `arguments` or `environment`."""
        path = self.root / name
        text = path.read_text() if path.exists() else ""
        return [record.splitlines() for record in text.split("--\n")[:-1]]

    def lines(self, name: str) -> list[str]:
        path = self.root / name
        return path.read_text().splitlines() if path.exists() else []

    def until(self, condition, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.02)

    def until_it_waits(self) -> None:
        self.until((self.root / "waits").exists)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path(f"/proc/{pid}/stat").read_text().split(") ")[1].startswith("Z")
