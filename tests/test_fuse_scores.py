"""Scores of evaluations: the file, and sums of several by value."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path

import numpy as np
import pytest

from errors import UserError, run_command
from report import ClipScores, read_scores, save_scores
from tools.fuse_scores import (
    Streams,
    _divisions,
    _num_part,
    best_weights,
    fuse,
    main,
    open_streams,
)

# Three clips of three classes; each stream alone gets two right, and not the same two.
NAMES, LABELS = ["a", "b", "c"], [0, 1, 2]
JOINT = [[3.0, 0, 0], [0, 2, 0], [2, 0, 1]]
BONE = [[0.0, 1, 0], [0, 5, 0], [0, 0, 4]]


def write(folder: Path, names: list, labels: list, logits: object, **about: object) -> str:
    scores = ClipScores(np.array(names), np.array(labels), np.array(logits), about)
    save_scores(folder / "scores.npz", scores)
    return str(folder / "scores.npz")


def many(seed: int, num: int = 3, clips: int = 200, classes: int = 7) -> Streams:
    """Streams that know the label through noise of their own, each at its own scale."""
    rng = np.random.RandomState(seed)
    labels = rng.randint(classes, size=clips)
    clear = np.eye(classes)[labels]
    scores = [(n + 1) * (clear + rng.standard_normal(clear.shape)) for n in range(num)]
    names = np.array([f"clip{n:04d}" for n in range(clips)])
    return Streams(names, labels, np.array(scores, np.float32))


def num_right(streams: Streams, weights: object) -> int:
    total = sum(w * s.astype(np.float64) for w, s in zip(weights, streams.scores))
    return int((total.argmax(axis=1) == streams.labels).sum())


def test_scores_round_trip(tmp_path: Path) -> None:
    logits = np.random.RandomState(0).standard_normal((3, 4))
    path = tmp_path / "run/scores.npz"
    save_scores(path, ClipScores(np.array(NAMES), np.array([0, 1, 3], np.int32), logits))
    got = read_scores(path)
    assert got.names.tolist() == NAMES and got.names.dtype.kind == "U"
    assert got.labels.tolist() == [0, 1, 3] and got.labels.dtype == np.int64
    np.testing.assert_array_equal(got.logits, logits.astype(np.float32))


@pytest.mark.parametrize(
    ("names", "labels", "logits", "message"),
    [
        (["a", "b", "a"], LABELS, JOINT, "clip a occurs more than once"),
        (NAMES, [0, 1, 3], JOINT, "labels 0 to 3; allowed: 0 to 2"),
        (NAMES, [-1, 1, 2], JOINT, "labels -1 to 2; allowed: 0 to 2"),
        (NAMES, [0, 1], JOINT, "3 names, 2 labels and logits"),
        ([], [], np.zeros((0, 3)), "at least one"),
        (NAMES, LABELS, [[0, 0, 0], [0, np.nan, 0], [np.inf, 0, 0]], "clip b hold NaN"),
        (NAMES, LABELS, [1, 2, 3], r"logits float32\(3,\); allowed: text"),
        (NAMES, [[0], [1], [2]], JOINT, r"labels int64\(3, 1\), logits"),
    ],
)
def test_wrong_scores_are_refused(
    tmp_path: Path, names: list, labels: list, logits: object, message: str
) -> None:
    path = write(tmp_path, names, labels, logits)
    with pytest.raises(UserError, match=f"scores.npz: .*{message}"):
        read_scores(path)


def test_files_that_are_no_scores(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    with pytest.raises(UserError, match="s.npz: cannot be read: No such file"):
        read_scores(path)
    np.savez(path, names=np.array(["a"]), logits=np.zeros((1, 2)))
    with pytest.raises(UserError, match="s.npz: not a score file: labels missing"):
        read_scores(path)
    np.savez(path, names=np.array([{}]), labels=np.zeros(1), logits=np.zeros((1, 2)))
    with pytest.raises(
        UserError, match="s.npz: not a score file of an evaluation.*allow_pickle=False"
    ):
        read_scores(path)
    np.savez(path, names=np.array(["a"]), labels=np.zeros(1), logits=np.zeros((1, 2)))
    with pytest.raises(UserError, match=r"labels float64\(1,\), logits float64\(1, 2\)"):
        read_scores(path)
    np.save(tmp_path / "s.npy", np.zeros(3))
    for content in (pickle.dumps([1]), b"", b"PK\x03\x04", (tmp_path / "s.npy").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(UserError, match="s.npz: not a score file of an evaluation"):
            read_scores(path)


def test_damaged_scores_are_refused(tmp_path: Path) -> None:
    whole = Path(write(tmp_path, NAMES, LABELS, JOINT)).read_bytes()
    rng = np.random.RandomState(0)
    refused = 0
    for trial in range(300):
        damaged = bytearray(whole[: rng.randint(len(whole))] if trial % 2 else whole)
        for _ in range(3):
            if damaged:
                damaged[rng.randint(len(damaged))] = rng.randint(256)
        (tmp_path / "d.npz").write_bytes(damaged)
        try:
            read_scores(tmp_path / "d.npz")
        except UserError as error:
            assert str(tmp_path / "d.npz") in str(error)
            refused += 1
    assert refused > 150


def test_clips_are_matched_by_name(tmp_path: Path) -> None:
    a = write(tmp_path / "a", NAMES, LABELS, JOINT)
    order = [2, 0, 1]
    b = write(tmp_path / "b", *([values[n] for n in order] for values in (NAMES, LABELS, BONE)))
    for files in ([a, b], [b, a]):
        streams = open_streams(files, softmax=False)
        fused = dict(zip(streams.names, fuse(streams, [0.5, 0.5]).tolist()))
        assert fused == {"a": [1.5, 0.5, 0], "b": [0, 3.5, 0], "c": [1, 0, 2.5]}
        assert streams.labels[list(streams.names).index("c")] == 2


def test_probabilities_are_summed_on_demand(tmp_path: Path) -> None:
    files = [
        write(tmp_path / "a", ["x"], [0], [[1e4, 0, 0]]),
        write(tmp_path / "b", ["x"], [0], [[np.log(2), 0, np.log(5)]]),
    ]
    got = fuse(open_streams(files, softmax=True), [2, 1])
    np.testing.assert_allclose(got, [[2.25, 0.125, 0.625]], rtol=1e-6)


def test_different_clips_labels_and_classes_are_refused(tmp_path: Path) -> None:
    first = write(tmp_path / "first", NAMES, LABELS, JOINT)
    for number, (names, labels, logits, message) in enumerate(
        [
            (
                ["a", "b", "d"],
                LABELS,
                BONE,
                r"do not hold the same clips: c, d are in one only \(2",
            ),
            (["a", "b"], [0, 1], BONE[:2], "same clips: c is in one only"),
            (["c", "b", "a"], LABELS, BONE, "different labels for 2 clips, a for one"),
            (NAMES, [0, 1, 1], np.zeros((3, 2)), "has 2 classes, .* has 3"),
        ]
    ):
        other = write(tmp_path / str(number), names, labels, logits)
        with pytest.raises(UserError, match=f"^{other}.*{message}"):
            open_streams([first, other], softmax=False)


def test_table_and_fused_file_by_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write(tmp_path / "a", NAMES, LABELS, JOINT)
    b = write(tmp_path / "b", NAMES, LABELS, BONE)
    out = tmp_path / "fused.npz"
    assert main([a, b, "--weights", "3", "0.5", "--output", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "3 clips, 3 classes; sums of scores before softmax"
    assert [line.split() for line in lines[1:6]] == [
        ["top-1", "top-5", "weights"],
        [a, "66.67", "%", "100.00", "%"],
        [b, "66.67", "%", "100.00", "%"],
        ["sum,", "equal", "weights", "100.00", "%", "100.00", "%", "0.5", "0.5"],
        ["sum,", "given", "weights", "66.67", "%", "100.00", "%", "3", "0.5"],
    ]
    fused = read_scores(out)
    np.testing.assert_array_equal(fused.logits, [[9, 0.5, 0], [0, 8.5, 0], [6, 0, 5]])
    assert fused.names.tolist() == NAMES and fused.labels.tolist() == LABELS


def test_top5_counts_as_the_evaluation_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logits = np.tile(np.arange(8.0), (4, 1))
    files = [write(tmp_path / str(n), list("wxyz"), [7, 3, 2, 0], n * logits) for n in (1, 2)]
    main(files)
    assert capsys.readouterr().out.splitlines()[2].split()[1:] == ["25.00", "%", "50.00", "%"]


def test_weights_of_a_validation_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One stream knows, the other is loud noise: the weights must silence it, on new clips too."""
    rng = np.random.RandomState(0)
    files = {}
    for part, clips in (("va", 300), ("test", 100)):
        labels = rng.randint(4, size=clips)
        names = [f"{part}{n}" for n in range(clips)]
        good = np.eye(4)[labels] + 0.1 * rng.standard_normal((clips, 4))
        for stream, logits in (("good", good), ("loud", 9 * rng.standard_normal((clips, 4)))):
            files[part, stream] = write(tmp_path / part / stream, names, labels, logits)
    test, validate = ([files[part, s] for s in ("loud", "good")] for part in ("test", "va"))
    assert main([*test, "--validate", *validate]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "best weights: 100.00 % of the 300 clips of --validate"
    assert lines[-2].startswith("sum, equal weights") and float(lines[-2].split()[3]) < 50
    assert lines[-1].split()[3] == "100.00" and "note:" not in "".join(lines)
    loud, good = map(float, lines[-1].split()[-2:])
    assert 0 <= loud < 0.1 and loud + good == pytest.approx(1)

    main([*test, "--validate", *test])
    assert "note: 100 of the clips below are among them" in capsys.readouterr().out


@pytest.mark.parametrize("seed", range(3))
def test_found_weights_are_as_good_as_the_grid_and_repeat(seed: int) -> None:
    streams = many(seed)
    found = best_weights(streams)
    assert sum(found) == pytest.approx(1) and min(found) >= 0 and best_weights(streams) == found
    grid = [(a / 18, b / 18, (18 - a - b) / 18) for a in range(19) for b in range(19 - a)]
    reached = num_right(streams, found)
    assert reached >= max(num_right(streams, weights) for weights in grid)
    assert reached > num_right(streams, (1 / 3,) * 3)


def test_equal_weights_where_nothing_is_better() -> None:
    streams = many(0, num=4)
    sure = Streams(streams.names, streams.labels, np.tile(np.eye(7)[streams.labels], (4, 1, 1)))
    assert best_weights(sure) == (0.25,) * 4


def test_first_grid() -> None:
    assert [_num_part(n) for n in range(2, 8)] == [20, 18, 16, 10, 6, 7]
    every = [n for n in itertools.product(range(7), repeat=3) if sum(n) == 6]
    assert list(_divisions(6, 3)) == every


def test_wrong_arguments_end_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    eight = [write(tmp_path / str(n), NAMES, LABELS, n + np.array(JOINT)) for n in range(8)]
    a, b, *_ = eight
    two = [write(tmp_path / f"two{n}", ["a"], [0], [[1.0, n]]) for n in (2, 3)]
    for argv, message in (
        ([a], "1 score file; allowed: 2 or more"),
        ([a, b, "--accept", "datset"], "--accept datset: did you mean dataset?"),
        ([a, b, "--weights", "1"], "--weights has 1 entries for 2 score files"),
        ([a, b, "--validate", a], "--validate has 1 entries for 2 score files"),
        ([a, b, "--weights", "0", "0"], "allowed: 0 or more, and not all 0"),
        ([a, b, "--weights", "1", "nan"], "allowed: 0 or more"),
        ([a, b, "--weights", "1", "1e300"], "the sum of the scores is beyond float32"),
        ([a, b, "--weights", "1e-300", "1e-300"], "the sum of the scores is beyond float32"),
        ([a, b, "--output", "x.txt"], "--output is 'x.txt'; allowed: a name that ends in .npz"),
        ([*eight, "--validate", *eight], "8 streams; --validate supports up to 7"),
        ([a, b, "--validate", *two], "differ in the number of classes"),
    ):
        assert run_command(lambda argv=argv: main(argv)) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_a_sum_can_be_fused_again(tmp_path: Path) -> None:
    a, b = (write(tmp_path / n, NAMES, LABELS, x) for n, x in (("a", JOINT), ("b", BONE)))
    assert main([a, b, "--weights", "1", "1", "--output", str(tmp_path / "sum.npz")]) == 0
    streams = open_streams([str(tmp_path / "sum.npz"), a], softmax=False)
    np.testing.assert_array_equal(fuse(streams, [1, 1]), 2 * np.array(JOINT) + BONE)


def test_the_same_weights_count_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two evaluations of one run: by the hash of the weights, or, in older files, by the scores,
    whatever the order of the clips."""
    a = write(tmp_path / "a", NAMES, LABELS, JOINT, weights_sha256="1")
    b = write(tmp_path / "b", NAMES, LABELS, BONE, weights_sha256="1")
    old = write(tmp_path / "old", NAMES[::-1], LABELS[::-1], JOINT[::-1])
    for pair in ((a, b), (a, old)):
        assert run_command(lambda pair=pair: main(list(pair))) == 2
        error = capsys.readouterr().err
        assert f"{pair[0]} and {pair[1]} are scores of the same weights" in error


def test_streams_of_other_classes_or_data_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = {"dataset": "mine", "class_names": ["sit", "wave", "jump"], "weights_sha256": "1"}
    a = write(tmp_path / "a", NAMES, LABELS, JOINT, **first)
    for change, message in (
        ({"class_names": ["sit", "wave", "hop"]}, "class 2 is 'hop', "),
        ({"dataset": "other"}, "dataset is 'other', "),
    ):
        b = write(tmp_path / "b", NAMES, LABELS, BONE, **{**first, "weights_sha256": "2", **change})
        assert run_command(lambda b=b: main([a, b])) == 2
        error = capsys.readouterr().err
        assert f"{b}: {message}" in error and f"--accept {next(iter(change))}" in error
        assert main([a, b, "--accept", *change]) == 0
    b = write(tmp_path / "b", NAMES, LABELS, BONE, class_names=["sit"])
    assert run_command(lambda: main([a, b])) == 2
    assert "about.class_names are not the names of 3 classes" in capsys.readouterr().err


def test_tables_of_the_sum(tmp_path: Path) -> None:
    names = ["sit", "wave", "jump"]
    a = write(tmp_path / "a", NAMES, LABELS, JOINT, class_names=names)
    b = write(tmp_path / "b", NAMES, LABELS, BONE, class_names=names)
    out = tmp_path / "sum/both.npz"
    assert main([a, b, "--weights", "5", "1", "--output", str(out)]) == 0
    assert (tmp_path / "sum/both_confusion.csv").read_text().splitlines() == [
        "true \\ predicted,sit,wave,jump",
        *("sit,1,0,0", "wave,0,1,0", "jump,1,0,0"),
    ]
    per_class = (tmp_path / "sum/both_per_class.csv").read_text().splitlines()
    assert per_class[3] == "2,jump,1,0,0.0000,sit"
    assert (tmp_path / "sum/both_confusion.png").read_bytes().startswith(b"\x89PNG")
    assert read_scores(out).about["class_names"] == names
