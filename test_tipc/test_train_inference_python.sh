#!/usr/bin/env bash
# bash test_tipc/test_train_inference_python.sh CONFIG MODE [GPU]
#
# CONFIG: test_tipc/configs/<model>/train_infer_python.txt. MODE: lite_train_lite_infer or
# whole_infer. GPU: for whole_infer, which one. Exit code 0 when every command succeeded, 1 when
# one failed, 2 for a wrong call. Run it in the project's folder. See test_tipc/README.md.
set -euo pipefail

# shellcheck source=test_tipc/common_func.sh
source test_tipc/common_func.sh
[[ $# -ge 2 ]] || stop "usage: bash test_tipc/test_train_inference_python.sh CONFIG MODE [GPU]"

config=$1
mode=$2
read_config "$config"
check_mode "$mode"
model_name=$(value_of 2)
python=$(python_of_config)
output=test_tipc/output/$model_name/$mode
status_log=$output/results_python.log
succeeded=0 failed=0
runner=("$python") # the first words of every command
words=()           # the command that is being built

add_option() { # KEY VALUE: append to `words`; null is omitted, True and False are flags
    if [[ $1 == null || $2 == null || -z $2 ]]; then
        return
    elif [[ $1 == -* && $2 == True ]]; then
        words+=("$1")
    elif [[ $1 != -* || $2 != False ]]; then
        words+=("$1=$2")
    fi
}

begin() { # COMMAND: start `words` with the words of a line. No shell evaluates them.
    local given
    read -ra given <<< "$1"
    words=("${runner[@]}" "${given[@]}")
}

run() { # LOG: run `words` with its output in LOG, and print a line of the result
    local verdict=successfully status=0
    "${words[@]}" > "$1" 2>&1 || status=$?
    if [[ $status -eq 0 ]]; then
        succeeded=$((succeeded + 1))
    else
        verdict=failed
        failed=$((failed + 1))
        tail -n 5 "$1" >&2
    fi
    printf 'Run %s with command - %s - %s - %s\n' \
        "$verdict" "$model_name" "${words[*]}" "$1" | tee -a "$status_log"
    return "$status"
}

the_file() { # FOLDER PATTERN -> the only file there that matches
    local found
    mapfile -t found < <(compgen -G "$1/$2")
    [[ ${#found[@]} -eq 1 ]] || stop "${#found[@]} files match $1/$2; exactly one is required"
    printf '%s' "${found[0]}"
}

infer_once() { # MODEL DATA NAME BATCH_SIZE PRECISION: `words` holds the device's options
    add_option "$(key_of 44)" "$4"
    add_option "$(key_of 46)" "$5"
    add_option "$(key_of 47)" "$1"
    add_option "$(key_of 48)" "$2"
    add_option "$(key_of 50)" "$(value_of 50)"
    add_option "$(key_of 51)" "$(value_of 51)"
    run "$output/${chain}_python_infer_$3_precision_$5_batchsize_$4.log" || true
}

infer_on_cpu() { # MODEL DATA
    local engine_key engine threads precision batch
    engine_key=$(key_of 42)
    for engine in "${engines[@]}"; do
        for threads in "${threads_list[@]}"; do
            for batch in "${batches[@]}"; do
                for precision in "${precisions[@]}"; do
                    begin "$(value_of 40)"
                    add_option "$engine_key" "$engine"
                    add_option "$(key_of 43)" "$threads"
                    infer_once "$1" "$2" "cpu_${engine_key#--}_${engine}_threads_$threads" \
                        "$batch" "$precision"
                done
            done
        done
    done
}

infer_on_gpu() { # MODEL DATA
    local tensorrt precision batch
    for tensorrt in "${tensorrts[@]}"; do
        for batch in "${batches[@]}"; do
            for precision in "${precisions[@]}"; do
                begin "$(value_of 40)"
                add_option "$(key_of 41)" True
                add_option "$(key_of 45)" "$tensorrt"
                infer_once "$1" "$2" "gpu_usetrt_$tensorrt" "$batch" "$precision"
            done
        done
    done
}

infer() { # FOLDER DATA CHAIN: run the exported model with all settings of lines 41 to 46
    local chain=$3 model use_gpu use_gpus engines threads_list batches tensorrts precisions
    model=$(the_file "$1" "$(value_of 47)")
    IFS='|' read -ra use_gpus <<< "$(value_of 41)"
    IFS='|' read -ra engines <<< "$(value_of 42)"
    IFS='|' read -ra threads_list <<< "$(value_of 43)"
    IFS='|' read -ra batches <<< "$(value_of 44)"
    IFS='|' read -ra tensorrts <<< "$(value_of 45)"
    IFS='|' read -ra precisions <<< "$(value_of 46)"
    for use_gpu in "${use_gpus[@]}"; do
        case $use_gpu in
            False) infer_on_cpu "$model" "$2" ;;
            True) infer_on_gpu "$model" "$2" ;;
            *) stop "$config: line 41: $use_gpu; allowed: True, False, or both" ;;
        esac
    done
}

line_of_trainer() { # NAME -> its line, 16 to 21; its export command is 14 lines below
    local line
    for line in 16 17 18 19 20 21; do
        if [[ $(key_of "$line") == "$1" && $(value_of "$line") != null ]]; then
            printf '%s' "$line"
            return
        fi
    done
    stop "$config: line 15 names the trainer '$1', which has no command in lines 16 to 21"
}

begin_training() { # GPU COMMAND: `runner` and `words` for the CPU (-1), a GPU (0) or several (0,1)
    runner=("$python")
    if [[ $1 != -1 ]]; then
        runner=(env "CUDA_VISIBLE_DEVICES=$1" "$python")
    fi
    if [[ $1 == *,* ]]; then
        begin "-m paddle.distributed.launch $2"
        runner=(env "CUDA_VISIBLE_DEVICES=${1%%,*}" "$python") # the following commands use one
    else
        begin "$2"
    fi
}

train_and_infer() { # GPU USE_GPU AMP TRAINER: stops at the first failure
    local line name folder weights
    line=$(line_of_trainer "$4")
    name=$4_gpus_$1_autocast_$3
    folder=$output/$name
    begin_training "$1" "$(value_of "$line")"
    add_option "$(key_of 5)" "$2"
    add_option "$(key_of 8)" "$folder"
    add_option "$(key_of 7)" "$(value_for_mode 7 "$mode")"
    add_option "$(key_of 10)" "$(value_of 10)"
    add_option "$(key_of 6)" "$3"
    add_option "$(key_of 9)" "$(value_for_mode 9 "$mode")"
    add_option "$(key_of 13)" "$(value_of 13)"
    run "$output/${name}_train.log" || return 0
    weights=$(the_file "$folder" "$(value_of 11)")
    if [[ $(value_of 24) != null ]]; then
        begin "$(value_of 24)"
        add_option "$(key_of 10)" "$weights"
        add_option "$(key_of 5)" "$2"
        add_option "$(key_of 25)" "$(value_of 25)"
        run "$output/${name}_eval.log" || return 0
    fi
    if [[ $(value_of $((line + 14))) != null ]]; then
        begin "$(value_of $((line + 14)))"
        add_option "$(key_of 29)" "$weights"
        add_option "$(key_of 28)" "$folder/export"
        run "$output/${name}_export.log" || return 0
        infer "$folder/export" "$(value_of 12)" "$name"
    fi
}

lite_train_lite_infer() {
    local n gpus use_gpus amp amps trainer trainers
    IFS='|' read -ra gpus <<< "$(value_of 4)"
    IFS='|' read -ra use_gpus <<< "$(value_of 5)"
    IFS='|' read -ra amps <<< "$(value_of 6)"
    IFS='|' read -ra trainers <<< "$(value_of 15)"
    [[ ${#gpus[@]} -eq ${#use_gpus[@]} ]] || stop "$config: lines 4 and 5 must have as many values"
    for n in "${!gpus[@]}"; do
        for amp in "${amps[@]}"; do
            for trainer in "${trainers[@]}"; do
                train_and_infer "${gpus[n]}" "${use_gpus[n]}" "$amp" "$trainer"
            done
        done
    done
}

whole_infer() { # [GPU]
    local n models exports folder
    if [[ -n ${1:-} ]]; then
        runner=(env "CUDA_VISIBLE_DEVICES=$1" "$python")
    fi
    IFS='|' read -ra models <<< "$(value_of 37)"
    IFS='|' read -ra exports <<< "$(value_of 38)"
    for n in "${!models[@]}"; do
        folder=${models[n]}
        if [[ ${exports[n]:-null} != null ]]; then
            folder=$output/model_$n
            begin "${exports[n]}"
            add_option "$(key_of 29)" "${models[n]}"
            add_option "$(key_of 28)" "$folder"
            run "$output/model_${n}_export.log" || continue
        fi
        infer "$folder" "$(value_of 48)" "model_$n"
    done
}

rm -rf "$output"
mkdir -p "$output"
case $mode in
    lite_train_lite_infer) lite_train_lite_infer ;;
    whole_infer) whole_infer "${3:-}" ;;
esac
printf '%s %s: %d commands succeeded, %d failed; %s\n' \
    "$model_name" "$mode" "$succeeded" "$failed" "$status_log"
[[ $succeeded -gt 0 && $failed -eq 0 ]]
