"""Recordings -> data on disk: what is written, what is counted, and what is refused."""

from __future__ import annotations

import hashlib
import json
import logging
import zipfile
from pathlib import Path

import numpy as np
import pytest

import generator
from dataset.protocols import protocol
from dataset.writer import FILES, npy_header
from errors import UserError
from generator import generate
from reader.ntu.prenormalise import transform
from reader.ntu.reader import parse
from safe_pickle import load_pickle
from tests.processes import run_python
from tests.skeleton_text import (
    DATASET,
    clip_name,
    config_for,
    hashes,
    random_frames,
    skeleton_lines,
    skeleton_text,
    some_recordings,
    write_recordings,
)


def load_split(folder: Path, phase: str) -> tuple[np.ndarray, tuple[list, list, list]]:
    data = np.load(folder / f"{phase}_data.npy", mmap_mode="r")
    return data, load_pickle(folder / f"{phase}_label.pkl")


def manifest_of(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_recordings(tmp_path / "source", some_recordings())


@pytest.mark.parametrize("normalise", [False, True])
def test_writes_both_splits(source: Path, tmp_path: Path, normalise: bool):
    folder = generate(
        config_for(source, tmp_path / "out", transform=normalise), workers=1, progress=False
    )
    assert folder == tmp_path / "out" / ("transformed" if normalise else "original") / DATASET
    assert sorted(p.name for p in folder.iterdir()) == sorted(FILES)
    for phase, subjects in (("train", (1, 3)), ("eval", (2, 4))):
        data, (names, labels, lengths) = load_split(folder, phase)
        expected = sorted(n for n in some_recordings() if int(n[9:12]) in subjects)
        assert names == [f"{n}.skeleton" for n in expected]
        assert labels == [int(n[17:20]) - 1 for n in expected]
        assert data.shape == (6, 3, 300, 25, 2)
        assert data.dtype == np.float32
        assert data.flags.c_contiguous
        for clip, length, name in zip(data, lengths, expected):
            parsed = parse(some_recordings()[name], name)
            assert length == parsed.length
            wanted = transform(parsed.padded(300)) if normalise else parsed.padded(300)
            np.testing.assert_array_equal(clip, wanted)


def test_the_file_is_what_numpy_save_writes(source: Path, tmp_path: Path):
    folder = generate(config_for(source, tmp_path / "out"), workers=1, progress=False)
    np.save(tmp_path / "same.npy", np.load(folder / "train_data.npy"))
    assert (tmp_path / "same.npy").read_bytes() == (folder / "train_data.npy").read_bytes()


def test_header_length_does_not_depend_on_the_number_of_clips():
    assert len({len(npy_header(n, (3, 300, 25, 2))) for n in (0, 9, 10, 40_091, 10**9)}) == 1


def test_the_manifest_describes_the_set(source: Path, tmp_path: Path):
    folder = generate(config_for(source, tmp_path / "out"), workers=1, progress=False)
    manifest = manifest_of(folder)
    names, labels, _ = load_pickle(folder / "eval_label.pkl")
    lines = "".join(f"{name} {label}\n" for name, label in zip(names, labels))
    rules = protocol(DATASET)
    assert manifest["version"] == generator.VERSION
    assert manifest["dataset"] == DATASET
    assert manifest["source"] == str(source)
    assert manifest["transform"] is False
    assert manifest["skeleton"] == "ntu-25"
    assert manifest["clips"] == {"train": 6, "eval": 6}
    assert manifest["sha256"]["eval"] == hashlib.sha256(lines.encode()).hexdigest()
    assert manifest["num_class"] == rules.num_class
    assert manifest["class_names"] == list(rules.spec().class_names)
    assert manifest["skipped"] == []
    assert set(manifest["counters"].values()) == {0}


def test_everything_unusual_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    texts = {
        clip_name(1, 1): skeleton_text(random_frames(0, *[1] * 305)),
        clip_name(1, 2): skeleton_text(random_frames(1, 5, 1)),
        clip_name(2, 1): skeleton_text(random_frames(2, 0, 0, 0)),
        clip_name(2, 2): skeleton_text(random_frames(3, 0, 1)),
        clip_name(2, protocol(DATASET).num_class + 1): skeleton_text(random_frames(4, 1)),
    }
    write_recordings(tmp_path / "source" / "a", texts)
    write_recordings(tmp_path / "source" / "b", {clip_name(1, 2): texts[clip_name(1, 2)]})
    config = config_for(tmp_path / "source", tmp_path / "out")
    with caplog.at_level(logging.INFO):
        folder = generate(config, workers=1, progress=False)
    assert manifest_of(folder)["counters"] == {
        "second_copies": 1,
        "missing_skeletons": 0,
        "other_actions": 1,
        "cut_clips": 1,
        "clips_with_extra_bodies": 1,
        "clips_without_person": 1,
        "empty_frames": 4,
        "misnumbered_frames": 0,
        "clips_counted_from_zero": 0,
        "clips_with_swaps": 0,
    }
    assert load_pickle(folder / "train_label.pkl")[2] == [300, 2]
    assert f"wrote 2 training and 2 evaluation clips to {folder}" in caplog.text
    assert "1 cut clips" in caplog.text


def test_missing_skeletons_are_left_out_of_ntu_but_not_of_synthetic_data(tmp_path: Path):
    texts = dict.fromkeys(
        ("S001C002P005R002A008", "S001C001P001R001A001", "S018C001P001R001A061"),
        skeleton_text(random_frames(0, 1)),
    )
    source = write_recordings(tmp_path / "source", texts)
    ntu = generate(
        config_for(source, tmp_path / "out", dataset="ntu-xsub"), workers=1, progress=False
    )
    assert load_pickle(ntu / "train_label.pkl")[0] == ["S001C001P001R001A001.skeleton"]
    counters = manifest_of(ntu)["counters"]
    assert (counters["missing_skeletons"], counters["other_actions"]) == (1, 1)
    ours = generate(config_for(source, tmp_path / "out"), workers=1, progress=False)
    assert manifest_of(ours)["clips"] == {"train": 2, "eval": 0}


def test_an_empty_half_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    source = write_recordings(
        tmp_path / "source", {clip_name(1, 1): skeleton_text(random_frames(0, 1))}
    )
    folder = generate(config_for(source, tmp_path / "out"), workers=1, progress=False)
    assert "no recording belongs to the eval split" in caplog.text
    assert load_pickle(folder / "eval_label.pkl") == ([], [], [])


@pytest.mark.parametrize("normalise", [False, True])
def test_any_number_of_workers_writes_the_same_bytes(tmp_path: Path, normalise: bool):
    source = write_recordings(tmp_path / "source", some_recordings(40))
    bad = skeleton_lines(random_frames(0, 1))[:-1]
    write_recordings(source, {clip_name(2, 9): "\n".join(bad).encode()})
    results = []
    for workers in (0, 1, 2):
        config = config_for(
            source, tmp_path / str(workers), transform=normalise, on_bad_file="skip"
        )
        results.append(hashes(generate(config, workers=workers, progress=False)))
    assert all(result == results[0] for result in results)
    assert len(results[0]) == 5


def test_zip_and_folder_give_the_same_data(source: Path, tmp_path: Path):
    archive_path = tmp_path / "all.zip"
    with zipfile.ZipFile(archive_path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(source.iterdir(), reverse=True):
            archive.write(file, f"nturgb+d_skeletons/{file.name}")
    from_zip, from_folder = (
        generate(config_for(path, tmp_path / path.stem), workers=2, progress=False)
        for path in (archive_path, source)
    )
    manifests = manifest_of(from_zip), manifest_of(from_folder)
    assert [m.pop("source") for m in manifests] == [str(archive_path), str(source)]
    assert manifests[0] == manifests[1]
    for name in FILES[1:]:
        assert (from_zip / name).read_bytes() == (from_folder / name).read_bytes()


def test_a_relative_path_is_kept_as_given(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    folder = generate(config_for(Path("source"), Path("out")), workers=2, progress=False)
    assert folder == Path("out/original") / DATASET
    assert manifest_of(folder)["source"] == "source"


# --- bad recordings --------------------------------------------------------------------------


def bad_recordings() -> dict[str, bytes]:
    lines = skeleton_lines(random_frames(0, 1, 1))
    joint = lines[10].split(" ")
    return {
        clip_name(1, 1): "\n".join(lines).encode(),
        clip_name(1, 2): "\n".join(lines[:40]).encode(),
        clip_name(2, 1): "\n".join([*lines[:10], "x " + " ".join(joint[1:]), *lines[11:]]).encode(),
        clip_name(2, 2): "\n".join([*lines[:3], "24", *lines[4:]]).encode(),
        clip_name(2, 3): "\n".join(lines).encode(),
        "walking_01": "\n".join(lines).encode(),
    }


REASONS = {
    f"{clip_name(1, 2)}.skeleton": "line 40: the file ends before its last frame",
    f"{clip_name(2, 1)}.skeleton": "line 11: 'x' is not a coordinate in metres",
    f"{clip_name(2, 2)}.skeleton": "line 4: 24 joints; must be 25",
    "walking_01.skeleton": "'walking_01.skeleton' is not of the form",
}


def test_bad_files_are_skipped_and_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    source = write_recordings(tmp_path / "source", bad_recordings())
    config = config_for(source, tmp_path / "out", on_bad_file="skip")
    with caplog.at_level(logging.INFO):
        folder = generate(config, workers=1, progress=False)
    manifest = manifest_of(folder)
    assert {s["file"] for s in manifest["skipped"]} == set(REASONS)
    for skipped in manifest["skipped"]:
        assert skipped["reason"].startswith(REASONS[skipped["file"]])
    assert manifest["clips"] == {"train": 1, "eval": 1}
    data, (names, labels, lengths) = load_split(folder, "eval")
    assert (len(data), names, labels, lengths) == (1, [f"{clip_name(2, 3)}.skeleton"], [2], [2])
    assert "4 bad files skipped, see" in caplog.text


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", sorted(REASONS))
def test_a_bad_file_stops_with_file_and_line(tmp_path: Path, name: str, workers: int):
    texts = bad_recordings()
    kept = {n: texts[n] for n in (clip_name(1, 1), clip_name(2, 3), name[: -len(".skeleton")])}
    source = write_recordings(tmp_path / "source", kept)
    with pytest.raises(UserError) as caught:
        generate(config_for(source, tmp_path / "out"), workers=workers, progress=False)
    assert f"{source / name}, {REASONS[name]}" in str(caught.value)
    assert "--set dataset_args.ntu.on_bad_file=skip" in str(caught.value)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_only_bad_files_are_refused(tmp_path: Path):
    source = write_recordings(tmp_path / "source", {clip_name(1, 1): b"", clip_name(2, 1): b"1"})
    config = config_for(source, tmp_path / "out", on_bad_file="skip")
    with pytest.raises(UserError, match="all 2 recordings are unusable"):
        generate(config, workers=1, progress=False)


def test_a_protocol_without_recordings_is_refused(tmp_path: Path):
    source = write_recordings(
        tmp_path / "source", {clip_name(1, 100): skeleton_text(random_frames(0, 1))}
    )
    with pytest.raises(UserError, match="none of the 1 recordings belongs to synthetic-xsub"):
        generate(config_for(source, tmp_path / "out"), workers=1, progress=False)


def test_a_missing_path_is_named_with_its_key(tmp_path: Path):
    config = config_for(tmp_path / "no.zip", tmp_path / "out", dataset="ntu-xview")
    with pytest.raises(UserError, match=r"^dataset_args.ntu.ntu60_path is '.*no.zip', which does"):
        generate(config, workers=1, progress=False)


def test_importing_the_generator_does_not_import_paddle():
    code = "import sys, generator; sys.exit('paddle' in sys.modules)"
    assert run_python("-c", code).returncode == 0


@pytest.mark.parametrize("dataset", ["ntu-xsub", "ntu-xview"])
@pytest.mark.parametrize("normalise", [False, True])
def test_golden_samples(samples: Path, tmp_path: Path, dataset: str, normalise: bool):
    golden = np.load(samples / "golden" / "ntu7_generated.npz")
    config = config_for(samples / "samples" / "ntu", tmp_path, dataset=dataset, transform=normalise)
    folder = generate(config, workers=2, progress=False)
    written = {}
    for phase in ("train", "eval"):
        data, (names, labels, lengths) = load_split(folder, phase)
        assert labels == [int(name[17:20]) - 1 for name in names]
        written.update({name: (data[n], lengths[n]) for n, name in enumerate(names)})
    assert sorted(written) == golden["names"].tolist()
    for n, name in enumerate(golden["names"].tolist()):
        clip, length = written[name]
        assert length == golden["lengths"][n]
        if normalise:
            np.testing.assert_allclose(clip, golden["transformed"][n], atol=1e-5, rtol=0)
        else:
            assert clip.tobytes() == golden["original"][n].tobytes()
