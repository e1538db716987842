#!/usr/bin/env bash
# A SLURM of one node on this machine, for tests: Debian's packages slurm-wlm and munge, as root.
#
#   bash scripts/slurm.sh start DIR     then: export SLURM_CONF=DIR/slurm.conf
#   bash scripts/slurm.sh stop DIR
set -euo pipefail
command=${1:?start or stop}
dir=${2:?a folder for its files}

if [ "$command" = stop ]; then
  for pid in "$dir"/*.pid; do
    [ -f "$pid" ] && kill "$(cat "$pid")" 2>/dev/null || true
  done
  exit 0
fi

mkdir -p "$dir/state" "$dir/spool" "$dir/munge"
chmod 700 "$dir/munge"
host=$(hostname -s)
port=$((20000 + RANDOM % 20000))
head -c 128 /dev/urandom > "$dir/munge/key"
chmod 600 "$dir/munge/key"
cat > "$dir/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket
CredType=cred/munge
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
KillWait=20
SchedulerParameters=sched_interval=2,batch_sched_delay=0,requeue_setup_env_fail
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
munged --force --key-file="$dir/munge/key" --socket="$dir/munge/socket" \
  --pid-file="$dir/munged.pid" --log-file="$dir/munge/log" --seed-file="$dir/munge/seed"
export SLURM_CONF="$dir/slurm.conf"
slurmctld -c
slurmd
for _ in $(seq 60); do
  [ "$(sinfo --noheader --format=%t 2>/dev/null)" = idle ] && exit 0
  sleep 0.5
done
sinfo || true
tail -n 5 "$dir"/*.log >&2
exit 1
