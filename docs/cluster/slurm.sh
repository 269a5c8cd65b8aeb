#!/usr/bin/env bash
#SBATCH --job-name=wsss
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --signal=B:TERM@120
# A sweep on nodes that SLURM lends: sbatch docs/cluster/slurm.sh methods=all data=voc data.root=/data/voc store=/shared/results
# The words are those of `wsss sweep`; the project and the store lie where every node sees them. When the time is up the
# sweep is told 120 s before; the same sbatch again goes on from there. Without GPUs: sbatch --gpus-per-node=0 ...
set -euo pipefail
project=${SLURM_SUBMIT_DIR:-$PWD}
bin=$project/.venv/bin
[ -x "$bin/ray" ] || { echo "no $bin/ray: submit it from the project, after uv sync --frozen --extra cluster" >&2; exit 2; }
gpus=${SLURM_GPUS_ON_NODE:-0}
cpus=${SLURM_CPUS_PER_TASK:-1}

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
port=$((20000 + SLURM_JOB_ID % 10000))
place=${TMPDIR:-/tmp}/ray-$SLURM_JOB_ID

# A token of this job alone, in a file of this user alone: others on these nodes cannot run code in it.
mkdir -p "$HOME/.ray"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$HOME/.ray/slurm-$SLURM_JOB_ID RAY_USAGE_STATS_ENABLED=0
(umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "$RAY_AUTH_TOKEN_PATH")

ends=()
leave() {
  kill "${ends[@]}" 2> /dev/null || true
  wait 2> /dev/null || true
  rm -f "$RAY_AUTH_TOKEN_PATH"
}
trap leave EXIT

on() { # nodes, how many, words of `ray start`; stays until Ray is stopped there
  local where=$1 n=$2
  shift 2
  srun --overlap --nodes="$n" --ntasks="$n" --nodelist="$where" "$bin/ray" start "$@" --block \
    --num-cpus="$cpus" --num-gpus="$gpus" --disable-usage-stats > "ray-$SLURM_JOB_ID-${where%%,*}.log" 2>&1 &
  ends+=($!)
}

address=$(srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" hostname -I | awk '{print $1}')
on "$head" 1 --head --node-ip-address="$address" --port="$port" --temp-dir="$place" --include-dashboard=false
for try in $(seq 120); do
  (: < "/dev/tcp/$address/$port") 2> /dev/null && break
  kill -0 "${ends[0]}" 2> /dev/null || { echo "the head did not start: ray-$SLURM_JOB_ID-$head.log" >&2; exit 1; }
  [ "$try" -lt 120 ] || { echo "the head did not answer: ray-$SLURM_JOB_ID-$head.log" >&2; exit 1; }
  sleep 1
done
if [ "${#nodes[@]}" -gt 1 ]; then
  on "$(IFS=,; echo "${nodes[*]:1}")" $((${#nodes[@]} - 1)) --address="$address:$port"
fi

case " $* " in *" gpus="*) own=() ;; *) own=("gpus=$((gpus > 0))") ;; esac
cd "$project"
"$bin/python" -m harness.sweep address="$address:$port" "${own[@]}" "$@" &
sweep=$!
trap 'kill -TERM "$sweep"' TERM
code=0
wait "$sweep" || code=$?
# The first wait ends with the signal, the second with the sweep.
[ "$code" -le 128 ] || { code=0; wait "$sweep" || code=$?; }
exit "$code"
