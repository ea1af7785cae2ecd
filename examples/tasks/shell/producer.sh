#!/usr/bin/env bash
# A task in shell, with the nats command: ./producer.sh ID [STEPS]
set -euo pipefail

if [[ ${1-} == --answer ]]; then # `nats reply` runs the script like this for each call
    case $NATS_REQUEST_BODY in
        '{"v":1,"t":"ping"'*) echo '{"v":1,"t":"pong"}' ;; # is a producer attached?
        *'"e":"cancel"'*) kill -USR1 "$2" && echo '{"v":1,"t":"ok"}' ;;
        *) echo '{"v":1,"t":"err","d":{"code":"refused","message":"this task can only be cancelled"}}' ;;
    esac
    exit
fi

id=${1:?usage: producer.sh ID [STEPS]} steps=${2:-20}
heartbeat=5 cancelled=

tell() { # EVENT DATA
    nats pub --quiet --no-templates "fanline.pub.task.$id" "{\"v\":1,\"e\":\"$1\",\"d\":$2}"
}

beat() {
    while nats pub --quiet "fanline.beat.task.$id" alive; do sleep "$((heartbeat / 2))"; done
}

trap cancelled=yes USR1
trap 'kill $(jobs -p) 2>/dev/null' EXIT
nats reply "fanline.ctl.task.$id" --command "$0 --answer $$" &>/dev/null &
beat &>/dev/null &

tell task_started "{\"title\":\"Counting in shell\",\"heartbeat\":$heartbeat}"
for ((step = 1; step <= steps; step++)); do
    sleep 0.1 # the work
    if [[ $cancelled ]]; then
        tell task_cancelled '{}'
        exit
    fi
    tell task_output "{\"lines\":[\"step $step is done\"]}"
    tell task_progress "{\"done\":$step,\"total\":$steps,\"stage\":\"counting\"}"
done
tell task_completed "{\"result\":{\"counted\":$steps}}"
