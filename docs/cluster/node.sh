#!/usr/bin/env bash
# What a node of a cluster needs, step by step; each step may be run again.
#   node.sh shared ID      mount the file system ID (EFS) of this machine's region at /shared, now and at every boot
#   node.sh environment    uv, and the environment of the project by its lock file
#   node.sh shell          its commands and the token's mode in every login and in `ray exec`
#   node.sh head           start Ray here, as the head
#   node.sh worker HEAD    start Ray here, for the head at the address HEAD
#   node.sh notice         wait until AWS says that this spot machine goes, then tell the runs on it (worker starts it)
# Token: ~/.ray/auth_token, the same file on every node.
set -euo pipefail
project=$(cd "$(dirname "$0")/../.." && pwd)
port=6379

install_packages() { # name of a command, names of its packages
  command -v "$1" > /dev/null || sudo test -x "/sbin/$1" && return
  shift
  # A machine that has just booted may still be installing its own updates.
  sudo apt-get -o DPkg::Lock::Timeout=600 update -qq
  sudo apt-get -o DPkg::Lock::Timeout=600 install -y -qq "$@"
}

metadata() { # of this machine, by the second version of the cloud's service
  local at=http://169.254.169.254/latest key
  key=$(curl -sSf -m 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$at/api/token")
  curl -sSf -m 5 -H "X-aws-ec2-metadata-token: $key" "$at/meta-data/$1"
}

mount_shared() {
  case $1 in fs-FILL-IN) echo "no file system: write the id that \`wsss cluster prepare\` prints into cluster.yaml" >&2; exit 1 ;; esac
  local region line
  region=$(metadata placement/region)
  install_packages mount.nfs4 nfs-common
  line="$1.efs.$region.amazonaws.com:/ /shared nfs4 nfsvers=4.1,rsize=1048576,wsize=1048576,hard,timeo=600,retrans=2,noresvport,_netdev 0 0"
  sudo mkdir -p /shared
  grep -qxF "$line" /etc/fstab || echo "$line" | sudo tee -a /etc/fstab > /dev/null
  mountpoint -q /shared || sudo mount /shared
  sudo install -d -o "$(id -u)" -g "$(id -g)" /shared/results /shared/data
}

environment() {
  local uv
  uv=$(command -v uv || echo "$HOME/.local/bin/uv")
  if ! "$uv" --version > /dev/null 2>&1; then
    # Pythons of Debian and Ubuntu are managed by apt; below the home folder pip may install all the same.
    python3 -m pip --version > /dev/null 2>&1 || install_packages pip3 python3-pip
    PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --user --quiet uv
    uv=$HOME/.local/bin/uv
  fi
  (cd "$project" && "$uv" sync --frozen --extra cluster)
}

shell() {
  local line
  for line in "export PATH=$project/.venv/bin:\$HOME/.local/bin:\$PATH" 'export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0'; do
    grep -qxF "$line" ~/.bashrc 2> /dev/null || echo "$line" >> ~/.bashrc
  done
}

start_ray() {
  local ray=$project/.venv/bin/ray
  [ -s "${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}" ] || { echo "no token: \`wsss cluster token\` where \`ray up\` is run" >&2; exit 1; }
  chmod 600 "${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}"
  export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
  ulimit -n 65536 2> /dev/null || true
  local try
  for try in 1 2 3; do
    "$ray" stop > /dev/null
    # Ray gives itself 30 s, which a machine that is busy with its own boot exceeds.
    "$ray" start "$@" --disable-usage-stats && return
  done
  echo "Ray did not start here in three tries: its logs are in /tmp/ray/session_latest/logs" >&2
  exit 1
}

start_head() {
  # `ray up` leaves it; without it machines come by hand.
  local file=$HOME/ray_bootstrap_config.yaml known=()
  [ ! -f "$file" ] || known=(--autoscaling-config="$file")
  # Ray's second autoscaler counts the head among the workers of `type: local`, then forgets it, and starts no other.
  ! grep -Eqs '"?type"?: *"?local\b' "$file" || export RAY_enable_autoscaler_v2=0
  start_ray --head --port=$port ${known[@]+"${known[@]}"}
}

start_worker() {
  rm -f ~/.ray/leaving
  start_ray --address="$1:$port"
  if grep -qs "Amazon EC2" "${VENDOR:-/sys/devices/virtual/dmi/id/sys_vendor}"; then
    setsid bash "$project/docs/cluster/node.sh" notice > /dev/null 2>&1 < /dev/null &
  fi
}

await_notice() { # AWS says it two minutes before; runs that see the file write a checkpoint and leave
  [ "$(metadata instance-life-cycle)" = spot ] || return 0
  until metadata spot/instance-action > /dev/null 2>&1; do sleep "${EVERY:-5}"; done
  touch ~/.ray/leaving
}

case ${1:-} in
  shared) mount_shared "${2:?id of the file system}" ;;
  environment) environment ;;
  shell) shell ;;
  head) start_head ;;
  worker) start_worker "${2:?address of the head}" ;;
  notice) await_notice ;;
  *) sed -n 2,9p "$0"; exit 2 ;;
esac
