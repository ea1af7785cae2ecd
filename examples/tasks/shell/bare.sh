#!/usr/bin/env bash
# A task without a NATS client, since NATS is a text protocol: ./bare.sh ID [STEPS]
set -euo pipefail
export LC_ALL=C # lengths in bytes

id=${1:?usage: bare.sh ID [STEPS]} steps=${2:-20}
heartbeat=5 cancelled=
address=${NATS_URL##*[/@]} login=
if [[ $NATS_URL == *@* ]]; then # user:password, or a token
    login=${NATS_URL#nats://} login=${login%@*}
    [[ $login == *:* ]] && login="\"user\":\"${login%%:*}\",\"pass\":\"${login#*:}\"" || login="\"auth_token\":\"$login\""
fi

publish() { # SUBJECT PAYLOAD
    local message
    printf -v message 'PUB %s %d\r\n%s\r' "$1" "${#2}" "$2"
    cat <<<"$message" >&3 # in one write: printf writes line by line, and three processes write here
}

tell() { # EVENT DATA
    publish "fanline.pub.task.$id" "{\"v\":1,\"e\":\"$1\",\"d\":$2}"
}

answer() { # REPLY-SUBJECT CALL
    case $2 in
        '{"v":1,"t":"ping"'*) publish "$1" '{"v":1,"t":"pong"}' ;; # is a producer attached?
        *'"e":"cancel"'*)
            publish "$1" '{"v":1,"t":"ok"}'
            kill -USR1 $$
            ;;
        *) publish "$1" '{"v":1,"t":"err","d":{"code":"refused","message":"this task can only be cancelled"}}' ;;
    esac
}

listen() { # until NATS answers the PING at the end with PONG
    local call size
    while read -r -a word <&3; do
        case ${word[0]%$'\r'} in
            PING) printf 'PONG\r\n' >&3 ;;
            PONG) return ;;
            MSG)
                size=${word[-1]%$'\r'}
                read -r -N "$((size + 2))" call <&3
                ((${#word[@]} == 5)) && answer "${word[3]}" "$call"
                ;;
            -ERR)
                echo "NATS says: ${word[*]}" >&2
                return 1
                ;;
        esac
    done
}

beat() {
    while publish "fanline.beat.task.$id" ''; do sleep "$((heartbeat / 2))"; done
}

exec 3<>"/dev/tcp/${address%:*}/${address##*:}"
printf 'CONNECT {"verbose":false%s}\r\nSUB fanline.ctl.task.%s 1\r\n' "${login:+,$login}" "$id" >&3
trap cancelled=yes USR1
trap 'kill $(jobs -p) 2>/dev/null' EXIT
listen &
listener=$!
beat &

work() {
    tell task_started "{\"title\":\"Counting in bash\",\"heartbeat\":$heartbeat}"
    for ((step = 1; step <= steps; step++)); do
        sleep 0.1 # the work
        if [[ $cancelled ]]; then
            tell task_cancelled '{}'
            return
        fi
        tell task_output "{\"lines\":[\"step $step is done\"]}"
        tell task_progress "{\"done\":$step,\"total\":$steps,\"stage\":\"counting\"}"
    done
    tell task_completed "{\"result\":{\"counted\":$steps}}"
}

work
printf 'PING\r\n' >&3
wait "$listener"
