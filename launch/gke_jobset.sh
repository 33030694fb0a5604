#!/usr/bin/env bash
# A run on a TPU slice of a GKE cluster, as a JobSet: a pod for each host, all started again together where the exit code
# is worth it.
#   launch/gke_jobset.sh yaml   NAME --image=IMAGE --claim=CLAIM [--accelerator=A] [--topology=4x4] [--chips-per-host=4]
#                               [--spot] [--max-restarts=R] pretrain --workdir=/share/RUN ...
#   launch/gke_jobset.sh apply  NAME (the same)
#   launch/gke_jobset.sh status NAME
#   launch/gke_jobset.sh logs   NAME [--worker=I] [--lines=N] [--follow]
#   launch/gke_jobset.sh delete NAME --yes        pods get SIGTERM and two minutes to save; the claim stays
# All take --namespace=N and --dry-run. IMAGE is of launch/Dockerfile. CLAIM is a PersistentVolumeClaim that many pods can
# write, as of Filestore; it is mounted at /share. The cluster needs the JobSet controller, and a node pool of the topology.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/common.sh

action="" name="" image="" claim="" accelerator=tpu-v5-lite-podslice topology=4x4 chips_per_host=4 spot=""
max_restarts=10 namespace=default worker=0 lines=20 follow="" yes=""
values="image claim accelerator topology chips-per-host max-restarts namespace worker lines" flags="spot follow yes"
action_and_name "$values" "$flags" "$@"
check_name "$namespace"
check_number max-restarts "$max_restarts"
check_number chips-per-host "$chips_per_host"
check_number worker "$worker"
check_number lines "$lines"

# A word as YAML, which reads JSON's strings.
text() {
    [[ $1 != *[[:cntrl:]]* ]] || fail "an argument has a control character: $(quoted "$1")"
    local word=${1//\\/\\\\}
    word=${word//\"/\\\"}
    printf '"%s"' "${word//\$(/\$\$(}" # Kubernetes would put a variable in the place of $(NAME)
}

yaml() {
    local chips hosts word arguments=""
    [ "$image" ] || fail "--image is missing: one made of launch/Dockerfile"
    check_name "$claim"
    [[ $accelerator =~ ^[a-z0-9-]+$ ]] || fail "--accelerator=$accelerator is no label"
    [[ $topology =~ ^[0-9]+x[0-9]+(x[0-9]+)?$ ]] || fail "--topology=$topology is not like 4x4 or 4x4x4"
    [ ${#words[@]} -gt 0 ] || fail "no command: pretrain --workdir=/share/RUN"
    chips=$((${topology//x/*}))
    if [ "$chips_per_host" -eq 0 ] || [ "$chips" -eq 0 ] || [ $((chips % chips_per_host)) -ne 0 ]; then
        fail "--topology=$topology has $chips chips, which hosts of --chips-per-host=$chips_per_host do not make"
    fi
    hosts=$((chips / chips_per_host))
    for word in "${words[@]}"; do arguments+="${arguments:+, }$(text "$word")"; done
    cat <<YAML
# Made by launch/gke_jobset.sh yaml $name; make it again instead of editing it.
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $name
  namespace: $namespace
  labels:
    made-by: bertjax-launch
  annotations:
    # All pods in one node pool, which is one slice.
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
spec:
  network: # a headless service of this name, by which the hosts find each other
    enableDNSHostnames: true
    subdomain: $name
  failurePolicy:
    maxRestarts: $max_restarts
    rules:
      - action: FailJobSet # what podFailurePolicy below calls final is not started again
        onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
    - name: worker
      replicas: 1
      template:
        spec:
          completionMode: Indexed # a host keeps its number
          parallelism: $hosts
          completions: $hosts
          backoffLimit: 0 # one pod that fails ends all, since none can go on without it; then all start again
          podFailurePolicy:
            rules:
              - action: FailJob
                onExitCodes:
                  containerName: bertjax
                  operator: NotIn # 75 preempted, 6 a peer that died, above 128 death by a signal; any other is final
                  values: [6, 75, $(seq -s ', ' 129 159)]
          template:
            metadata:
              labels:
                made-by: bertjax-launch
            spec:
              restartPolicy: Never
              terminationGracePeriodSeconds: 120 # for the save after SIGTERM; a spot node leaves less
              nodeSelector:
                cloud.google.com/gke-tpu-accelerator: $accelerator
                cloud.google.com/gke-tpu-topology: $topology
YAML
    [ -z "$spot" ] || cat <<YAML
                cloud.google.com/gke-spot: "true"
              tolerations:
                - {key: cloud.google.com/gke-spot, operator: Equal, value: "true", effect: NoSchedule}
YAML
    cat <<YAML
              containers:
                - name: bertjax
                  image: $(text "$image")
                  args: ["--environment=launch/tpu.env", $arguments]
                  env:
                    - {name: BERTJAX_EXPECT_DEVICES, value: "$chips"}
                  ports:
                    - containerPort: 8471 # between the hosts of a slice
                    - containerPort: 8476 # the coordinator
                  resources:
                    requests: {google.com/tpu: $chips_per_host}
                    limits: {google.com/tpu: $chips_per_host}
                  volumeMounts:
                    - {name: share, mountPath: /share}
              volumes:
                - name: share
                  persistentVolumeClaim: {claimName: $claim}
YAML
}

selector="jobset.sigs.k8s.io/jobset-name=$name"
[ "$action" = yaml ] || needs kubectl
case "$action" in
yaml) yaml ;;
apply)
    manifest=$(yaml)
    note "with this as its standard input"
    run kubectl apply --filename=- <<<"$manifest"
    [ -z "$dry_run" ] || echo "$manifest"
    ;;
status)
    run kubectl get jobset "$name" --namespace="$namespace"
    run kubectl get pods --namespace="$namespace" --selector="$selector"
    ;;
logs)
    run kubectl logs --namespace="$namespace" --tail="$lines" ${follow:+--follow} \
        --selector="$selector,batch.kubernetes.io/job-completion-index=$worker"
    ;;
delete)
    [ "$yes" ] || fail "delete ends $name: say --yes"
    # The label goes with the name, so that a JobSet of somebody else is not found.
    run kubectl delete jobset --namespace="$namespace" --field-selector="metadata.name=$name" \
        --selector=made-by=bertjax-launch
    ;;
*) fail "$action is none of yaml, apply, status, logs, delete" ;;
esac
