# shellcheck shell=bash
# Sourced by prepare.sh and test_train_inference_python.sh: reads train_infer_python.txt.

stop() { # MESSAGE: a user error
    printf 'error: %s\n' "$1" >&2
    exit 2
}

# Reads the file into the array `lines`. Line numbers elsewhere count from 1.
read_config() { # FILE
    local heading
    [[ -f $1 ]] || stop "$1: no such file; allowed: test_tipc/configs/<model>/train_infer_python.txt"
    mapfile -t lines < "$1"
    lines=("${lines[@]%$'\r'}")
    [[ ${#lines[@]} -eq 51 ]] ||
        stop "$1: ${#lines[@]} lines; the layout, which is read by line number, has 51"
    for heading in 1:train_params 23:eval_params 27:infer_params; do
        [[ ${lines[${heading%:*} - 1]} == *"=${heading#*:}="* ]] ||
            stop "$1: line ${heading%:*} must be the heading ${heading#*:}; a line is missing or extra"
    done
}

check_mode() { # MODE
    case $1 in
        lite_train_lite_infer | whole_infer) ;;
        *) stop "mode is '$1'; allowed: lite_train_lite_infer, whole_infer" ;;
    esac
}

key_of() { # LINE -> the text before its first colon
    printf '%s' "${lines[$1 - 1]%%:*}"
}

value_of() { # LINE -> the text after its first colon
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
