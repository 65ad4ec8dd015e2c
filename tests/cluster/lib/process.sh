# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared between files
# Components: each is a process group that a script of its own starts and that its leader's recorded
# id ends. An id is good only with the start time beside it, since ids are used again.

# define NAME COMMAND...: writes the script that starts it.
define() {
    local name=$1
    shift
    write_run "$name" 'exec %s\n' "$@"
}

# define_restarted NAME COMMAND...: one that is meant to end when it finds the API server away, and to
# be started again.
define_restarted() {
    local name=$1
    shift
    # shellcheck disable=SC2016  # the script expands it
    write_run "$name" 'while :; do\n    %s\n    echo "ended with $?" >&2\n    sleep 1\ndone\n' "$@"
}

# write_run NAME FORMAT COMMAND...
write_run() {
    local folder=$dir/components/$1 format=$2
    shift 2
    mkdir -p "$folder"
    {
        echo '#!/usr/bin/env bash'
        # shellcheck disable=SC2059  # it is one of the two above
        printf "$format" "$(printf '%q ' "$@")"
    } >"$folder/run"
    chmod +x "$folder/run"
}

# The start time of a process in clock ticks, nothing if there is none. A zombie is none.
started_at() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    # The name in parentheses may hold spaces; what follows it is the state and 18 numbers.
    read -ra stat <<<"${stat##*) }"
    [[ ${stat[0]} != Z ]] && echo "${stat[19]}"
}

# pid_of NAME: its process id, while it lives.
pid_of() {
    local pid start
    read -r pid start 2>/dev/null <"$dir/components/$1/pid" || return 1
    [[ $(started_at "$pid") == "$start" ]] && echo "$pid"
}

defined() {
    [[ -x $dir/components/$1/run ]]
}

# start NAME: does nothing if it runs.
start() {
    local folder=$dir/components/$1 pid
    defined "$1" || die "there is no component '$1'; there are: $(components)"
    if pid_of "$1" >/dev/null; then
        return
    fi
    # The shell gives it its group before it goes on: a caller that ends the group of this script as
    # soon as the script is through does not meet it there.
    set -m
    "$folder/run" </dev/null >>"$folder/log" 2>&1 9>&- &
    pid=$!
    set +m
    echo "$pid $(started_at "$pid")" >"$folder/pid"
}

# gone NAME: whether it has ended.
gone() {
    ! pid_of "$1" >/dev/null
}

# empty_group PID
empty_group() {
    ! kill -s 0 -- "-$1"
}

# stop NAME [SIGNAL]: asks it to end, and ends it 5 s later. Returns when it is gone.
stop() {
    local name=$1 pid
    pid=$(pid_of "$name") || return 0
    # One that is paused would not hear without the second.
    kill -s "${2:-TERM}" -- "-$pid" 2>/dev/null || true
    kill -s CONT -- "-$pid" 2>/dev/null || true
    if ! wait_until "the end of $name" 5 empty_group "$pid" 2>/dev/null; then
        kill -s KILL -- "-$pid" 2>/dev/null || true
        wait_until "the end of $name" 10 empty_group "$pid"
    fi
    rm -f "$dir/components/$name/pid"
}

# signal NAME SIGNAL
signal() {
    local pid
    pid=$(pid_of "$1") || die "$1 is not running"
    kill -s "$2" -- "-$pid"
}

components() {
    local script
    for script in "$dir"/components/*/run "$dir"/components/node-*/*/run; do
        if [[ -e $script ]]; then
            script=${script#"$dir/components/"}
            echo "${script%/run}"
        fi
    done | tr '\n' ' '
}

# complain NAME: shows the end of its log.
complain() {
    say "--- the end of $dir/components/$1/log"
    tail -n 20 "$dir/components/$1/log" >&2 || true
}
