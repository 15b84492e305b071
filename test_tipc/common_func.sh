# shellcheck shell=bash
# Sourced by prepare.sh and test_train_inference_python.sh: the reading of train_infer_python.txt.

stop() { # MESSAGE: a mistake of the user
    printf 'error: %s\n' "$1" >&2
    exit 2
}

# The file's lines into the array `lines`. Everything else counts them from 1, as an editor does.
read_config() { # FILE
    local place
    [[ -f $1 ]] || stop "$1: no such file; allowed: test_tipc/configs/<model>/train_infer_python.txt"
    mapfile -t lines < "$1"
    lines=("${lines[@]%$'\r'}")
    [[ ${#lines[@]} -eq 51 ]] ||
        stop "$1: ${#lines[@]} lines; the layout, which is read by line number, has 51"
    for place in 1:train_params 23:eval_params 27:infer_params; do
        [[ ${lines[${place%:*} - 1]} == *"=${place#*:}="* ]] ||
            stop "$1: line ${place%:*} must be the heading ${place#*:}; a line is missing or too many"
    done
}

check_mode() { # MODE
    case $1 in
        lite_train_lite_infer | whole_infer) ;;
        *) stop "mode is '$1'; allowed: lite_train_lite_infer, whole_infer" ;;
    esac
}

key_of() { # LINE -> what is in front of its first colon
    printf '%s' "${lines[$1 - 1]%%:*}"
}

value_of() { # LINE -> what is behind its first colon
    printf '%s' "${lines[$1 - 1]#*:}"
}

value_for_mode() { # LINE MODE -> 2 from 'key:lite_train_lite_infer=2|whole_train_whole_infer=70'
    local choice choices
    IFS='|' read -ra choices <<< "$(value_of "$1")"
    for choice in "${choices[@]}"; do
        if [[ ${choice%%=*} == "$2" ]]; then
            printf '%s' "${choice#*=}"
        fi
    done
}

# The interpreter: $PYTHON, else line 3.
python_of_config() {
    local python
    python=${PYTHON:-$(value_of 3)}
    command -v "$python" > /dev/null ||
        stop "there is no '$python' here; set PYTHON, e.g. PYTHON=.venv/bin/python bash $0 ..."
    printf '%s' "$python"
}
