#!/usr/bin/env bash
# bash test_tipc/prepare.sh test_tipc/configs/<model>/train_infer_python.txt <mode>
#
# Generates the data for the test of a model: synthetic recordings of two subjects, one for training
# and one for evaluation. Nothing is downloaded. Run it in the project's folder.
set -euo pipefail
# shellcheck source=test_tipc/common_func.sh
source test_tipc/common_func.sh
[[ $# -ge 2 ]] || stop "usage: bash test_tipc/prepare.sh CONFIG MODE"

read_config "$1"
check_mode "$2"
model_name=$(value_of 2)
python=$(python_of_config)
data=test_tipc/data/$model_name

rm -rf "$data"
"$python" dataset/synthetic.py --save_dir "$data/recordings" --subjects 2 -np
"$python" main.py -c "test_tipc/configs/$model_name/tiny.yaml" -gd -np
