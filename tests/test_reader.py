"""Finding recordings, reading their bytes, and parsing them."""

from __future__ import annotations

import codecs
import contextlib
import multiprocessing
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from errors import UserError
from reader.clip import BadRecording
from reader.ntu import recordings
from reader.ntu.coordinates import first_three
from reader.ntu.reader import parse
from reader.ntu.recordings import RecordingFiles, find_recordings, missing_skeletons
from reader.ntu.source import NTUReader
from reader.parallel import in_order
from reader.source import Item
from tests.archives import lying_archive
from tests.skeleton_text import random_frames, skeleton_lines, skeleton_text, write_recordings

A, B = "S001C001P001R001A001", "S001C001P002R001A002"


def positions_of(bodies: list[np.ndarray]) -> np.ndarray:
    """One body a frame -> (C, T, V) float32."""
    return np.stack(bodies).astype(np.float32).transpose(2, 0, 1)


# --- parsing ---------------------------------------------------------------------------------


def test_one_body_fills_person_0_and_leaves_person_1_empty():
    frames = random_frames(0, 1, 1, 1)
    clip = parse(skeleton_text(frames), "x")
    assert clip.positions.shape == (3, 3, 25, 2)
    assert clip.positions.dtype == np.float32
    np.testing.assert_array_equal(clip.positions[..., 0], positions_of([f[0] for f in frames]))
    assert not clip.positions[..., 1].any()
    assert (clip.length, clip.is_truncated, clip.has_extra_body, clip.empty_frames) == (
        3,
        False,
        False,
        0,
    )


def test_padding_appends_zeros_to_300_frames():
    clip = parse(skeleton_text(random_frames(0, 1, 1, 1)), "x")
    assert clip.padded(300).shape == (3, 300, 25, 2)
    np.testing.assert_array_equal(clip.padded(300)[:, :3], clip.positions)
    assert not clip.padded(300)[:, 3:].any()


def test_the_two_persons_who_move_most_come_first_to_last():
    frames = random_frames(1, 3, 3, 3, 3)
    for bodies in frames:  # about their own places, so that only the spread counts
        for body, spread in zip(bodies, (0.5, 0.1, 2.0)):
            body[:] = np.round(body * spread, 4)
    clip = parse(skeleton_text(frames), "x")
    np.testing.assert_array_equal(clip.positions[..., 0], positions_of([f[2] for f in frames]))
    np.testing.assert_array_equal(clip.positions[..., 1], positions_of([f[0] for f in frames]))


def test_motion_counts_only_frames_in_which_the_body_exists():
    # Standing still far from the origin, and there in half of the frames: no motion at all.
    still, moving = np.full((25, 3), 9.0), random_frames(2, *[1] * 6)
    frames = [[moving[t][0], still] if t % 2 else [moving[t][0]] for t in range(6)]
    clip = parse(skeleton_text(frames), "x")
    np.testing.assert_array_equal(clip.positions[..., 0], positions_of([f[0] for f in moving]))
    assert set(np.unique(clip.positions[..., 1])) == {0, 9}


def test_bodies_of_equal_motion_put_the_later_one_first():
    frames = [[body, -body] for (body,) in random_frames(3, 1, 1, 1)]  # to the bit
    clip = parse(skeleton_text(frames), "x")
    np.testing.assert_array_equal(clip.positions[..., 0], positions_of([f[1] for f in frames]))
    np.testing.assert_array_equal(clip.positions[..., 1], positions_of([f[0] for f in frames]))


def test_a_byte_order_mark_is_no_part_of_the_text():
    text = skeleton_text(random_frames(0, 1, 2, 0))
    plain, marked = (parse(data, "x") for data in (text, codecs.BOM_UTF8 + text))
    np.testing.assert_array_equal(plain.positions, marked.positions)
    assert (marked.length, marked.empty_frames) == (3, 1)
    with pytest.raises(BadRecording, match="^x, line 1: .* is not a number of frames"):
        parse(codecs.BOM_UTF8 * 2 + text, "x")


def test_crlf_reads_like_lf():
    frames = random_frames(4, 1, 2, 0, 1)
    lf, crlf = (parse(skeleton_text(frames, end), "x") for end in ("\n", "\r\n"))
    np.testing.assert_array_equal(lf.positions, crlf.positions)
    assert (lf.length, lf.empty_frames) == (crlf.length, crlf.empty_frames) == (4, 1)


def test_frames_beyond_300_are_cut():
    frames = random_frames(5, *[1] * 303)
    clip = parse(skeleton_text(frames), "x")
    assert (clip.length, clip.is_truncated) == (300, True)
    np.testing.assert_array_equal(
        clip.padded(300)[..., 0], positions_of([f[0] for f in frames[:300]])
    )


def test_300_frames_are_not_cut():
    clip = parse(skeleton_text(random_frames(5, *[1] * 300)), "x")
    assert (clip.length, clip.is_truncated) == (300, False)


def test_a_fifth_body_is_ignored_and_noted():
    frames = random_frames(6, 4, 6, 4)
    with_more = parse(skeleton_text(frames), "x")
    four = parse(skeleton_text([bodies[:4] for bodies in frames]), "x")
    assert (with_more.has_extra_body, four.has_extra_body) == (True, False)
    np.testing.assert_array_equal(with_more.positions, four.positions)


def test_empty_frames_are_zeros_and_counted():
    clip = parse(skeleton_text(random_frames(7, 0, 1, 0, 0, 1)), "x")
    assert clip.empty_frames == 3
    assert clip.has_person
    assert clip.positions.any(axis=(0, 2, 3)).tolist() == [False, True, False, False, True]


def test_a_clip_without_any_person_is_all_zeros():
    clip = parse(skeleton_text(random_frames(8, 0, 0)), "x")
    assert not clip.has_person
    assert not clip.positions.any()
    assert (clip.length, clip.empty_frames) == (2, 2)


@pytest.mark.parametrize(
    ("old", "new"),
    [(" ", "\t"), (" ", "  "), ("-", " -"), ("\n", " \n"), ("0\n1\n", "0\n 01\n")],
    ids=["tabs", "two spaces", "columns", "trailing spaces", "counts with spaces and zeros"],
)
def test_unusual_spacing_reads_the_same(old: str, new: str):
    text = skeleton_text(random_frames(9, 1, 0, 1)).decode()
    assert old in text
    unusual = parse(text.replace(old, new).encode(), "x")
    np.testing.assert_array_equal(unusual.positions, parse(text.encode(), "x").positions)


def test_the_last_line_end_may_be_missing():
    text = skeleton_text(random_frames(10, 1, 1))
    np.testing.assert_array_equal(parse(text.rstrip(), "x").positions, parse(text, "x").positions)


# Lines of 2 frames with a body each count from 1: 1 frames, 2 bodies, 3 body, 4 joints, 5 to 29
# joints, 30 bodies, 31 body, 32 joints, 33 to 57 joints.
@pytest.mark.parametrize(
    ("row", "line", "said"),
    [
        (1, "two", "line 1: 'two' is not a number of frames"),
        (1, "", "line 1: '' is not a number of frames"),
        (1, "0", "line 1: 0 frames"),
        (1, "-3", "line 1: '-3' is not a number of frames"),
        (1, "3", "line 57: the file ends before its last frame"),
        (1, "1", "line 30: '1' after the last frame"),
        (2, "x", "line 2: 'x' is not a number of bodies"),
        (2, "0_1", "line 2: '0_1' is not a number of bodies"),
        (2, "2", "line 31: .* is not a number of joints"),
        (30, "-1", "line 30: '-1' is not a number of bodies"),
        (32, "24", "line 32: 24 joints; must be 25"),
        (32, "1000000000", "line 32: 1000000000 joints; must be 25"),
        (40, "0.1 0.2 abc 4 5 6 7 8 9 10 11 12", "line 40: 'abc' is not a coordinate"),
        (40, "0.1 0.2. 0.3 4 5 6 7 8 9 10 11 12", "line 40: '0.2.' is not a coordinate"),
        (40, "0.1 0.2 - 4 5 6 7 8 9 10 11 12", "line 40: '-' is not a coordinate"),
        (40, "nan 0.2 0.3 4 5 6 7 8 9 10 11 12", "line 40: 'nan' is not a coordinate"),
        (40, "0.1 -inf 0.3 4 5 6 7 8 9 10 11 12", "line 40: '-inf' is not a coordinate"),
        (40, "0.1 1e39 0.3 4 5 6 7 8 9 10 11 12", "line 40: '1e39' is not a coordinate"),
        (40, "0.1 \x00\x05 0.3 4 5 6 7 8 9 10 11 12", "line 40: .* is not a coordinate"),
        (40, "0.1 0.2", "line 40: 2 fields; must be 12"),
        (40, "0.1 0.2 ", "line 40: 2 fields; must be 12"),
        (40, "0.1 0.2 0.3", "line 40: 3 fields; must be 12"),
        (40, "", "line 40: 0 fields; must be 12"),
        (40, "0.1 0.2 0.3 4 5 6 7 8 9 10 11", "line 40: 11 fields; must be 12"),
        (40, "0.1 0.2 0.3 4 5 6 7 8 9 10 11 12 13", "line 40: 13 fields; must be 12"),
        (40, "0.1 1_0 0.3 4 5 6 7 8 9 10 11 12", "line 40: '1_0' is not a coordinate"),
        (57, "0.1 0.2 0.3 4 5 6 7", "line 57: 7 fields; must be 12"),
        (57, "0.1", "line 57: 1 fields; must be 12"),
    ],
)
def test_a_bad_line_is_named(row: int, line: str, said: str):
    lines = skeleton_lines(random_frames(11, 1, 1))
    lines[row - 1] = line
    with pytest.raises(BadRecording, match=f"^folder/a.skeleton, {said}"):
        parse("\n".join(lines).encode(), "folder/a.skeleton")


@pytest.mark.parametrize("num_line", [0, 1, 2, 3, 4, 5, 28, 29, 30, 31, 56])
def test_a_file_cut_after_any_line_is_refused(num_line: int):
    lines = skeleton_lines(random_frames(11, 1, 1))
    with pytest.raises(BadRecording, match=rf"line {max(num_line, 1)}: "):
        parse("".join(line + "\n" for line in lines[:num_line]).encode(), "x")


def test_text_behind_the_last_frame_is_refused_but_blank_lines_are_not():
    text = skeleton_text(random_frames(12, 1))
    parse(text + b"\n \r\n", "x")
    with pytest.raises(BadRecording, match="line 31: '1' after the last frame"):
        parse(text + b"\n1\n", "x")


def test_random_damage_is_refused_or_read_but_never_crashes():
    text = skeleton_text(random_frames(13, 2, 1, 1))
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(text)
        for place in rng.integers(len(text), size=rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        try:
            assert np.isfinite(parse(bytes(damaged), "x").positions).all()
        except BadRecording:
            refused += 1
    assert 50 < refused < 300


def test_numbers_have_the_bits_that_float_gives():
    rng = np.random.default_rng(1)
    fields = [f"{x:.{p}f}" for p in range(15) for x in rng.normal(scale=3, size=150)]
    fields += [f"{x:.7g}" for x in rng.normal(size=300) * 10.0 ** rng.integers(-12, 4, 300)]
    fields += ["0", "-0", "0.0", "-0.0", "9.99999999", "5.", ".5", "-.5", "1E-05", "+1.5", "00.1"]
    fields += ["0.1"] * (-len(fields) % 3)
    rows = [" ".join(fields[i : i + 3]) for i in range(0, len(fields), 3)]
    data = b"heading\n" + "".join(f"{row} 4 5\n" for row in rows).encode()
    starts = np.array([i + 1 for i, byte in enumerate(data) if byte == ord("\n")][:-1])
    expected = np.array([float(field) for field in fields])
    assert first_three(data, starts).tobytes() == expected.reshape(-1, 3).tobytes()


def test_a_field_in_the_last_bytes_of_the_text_is_read():
    assert first_three(b"heading\n0.1 5. 3.7 4", np.array([8])).tolist() == [[0.1, 5.0, 3.7]]


def test_fields_too_long_for_the_fast_way_are_read_by_the_slow_one():
    frames = random_frames(14, 1, 1)
    text = skeleton_text(frames).replace(b" 277.419", b"0" * 40 + b" 277.419")
    np.testing.assert_array_equal(
        parse(text, "x").positions, parse(skeleton_text(frames), "x").positions
    )


def test_golden_samples_bit_for_bit(samples: Path):
    golden = np.load(samples / "golden" / "ntu7_generated.npz")
    for name, original, length in zip(golden["names"], golden["original"], golden["lengths"]):
        file = samples / "samples" / "ntu" / str(name)
        clip = parse(file.read_bytes(), str(file))
        assert clip.padded(300).tobytes() == original.tobytes(), name
        assert clip.length == length


# --- finding and reading files ---------------------------------------------------------------


def test_recordings_are_found_in_folders_and_archives_sorted_by_name(tmp_path: Path):
    write_recordings(tmp_path / "z", {A: b"a"})
    write_recordings(tmp_path / "a" / "deep", {B: b"bb"})
    (tmp_path / "readme.txt").write_text("x")
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.writestr("nturgb+d_skeletons/S001C001P001R001A003.skeleton", b"ccc")
        archive.writestr("__MACOSX/._S001C001P001R001A003.skeleton", b"finder")
        archive.writestr("nturgb+d_skeletons/list.txt", b"x")
    found, copies = find_recordings(str(tmp_path), "key")
    assert copies == 0
    with contextlib.closing(RecordingFiles()) as files:
        read = [(recording.name, files.read(recording)) for recording in found]
    assert read == [
        (f"{A}.skeleton", b"a"),
        ("S001C001P001R001A003.skeleton", b"ccc"),
        (f"{B}.skeleton", b"bb"),
    ]


def test_a_second_copy_is_dropped_and_counted(tmp_path: Path):
    write_recordings(tmp_path / "1", {A: b"same"})
    write_recordings(tmp_path / "2", {A: b"same"})
    found, copies = find_recordings(str(tmp_path), "key")
    assert ([r.where for r in found], copies) == ([str(tmp_path / "1" / f"{A}.skeleton")], 1)


def test_linked_folders_are_followed_once_each_and_loops_end(tmp_path: Path):
    names = [f"S001C001P001R001A{n:03d}" for n in range(1, 4)]
    text = skeleton_text(random_frames(0, 1))
    root, elsewhere = tmp_path / "recordings", tmp_path / "elsewhere"
    for folder, name in zip((root, root / "sub", elsewhere / "deep"), names):
        folder.mkdir(parents=True)
        (folder / f"{name}.skeleton").write_bytes(text)
    (root / "linked").symlink_to(elsewhere)
    (root / "again").symlink_to(elsewhere / "deep")  # the same folder a second time
    (elsewhere / "deep" / "loop").symlink_to(elsewhere)
    (root / "sub" / "root").symlink_to(root)
    (root / "above").symlink_to(tmp_path)
    found, copies = find_recordings(str(root), "key")
    assert [recording.name for recording in found] == [f"{name}.skeleton" for name in names]
    assert copies == 0
    for recording in found:
        assert RecordingFiles().read(recording) == text


def test_different_recordings_of_one_name_are_refused(tmp_path: Path):
    write_recordings(tmp_path / "1", {A: b"one"})
    write_recordings(tmp_path / "2", {A: b"other"})
    with pytest.raises(UserError, match=f"2/{A}.*1/{A}.*remove the wrong one"):
        find_recordings(str(tmp_path), "key")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nowhere", "does not exist; give the folder .*--set the.key=PATH"),
        ("empty", "contains no .skeleton file"),
        ("file.txt", "neither a folder nor a .zip"),
        ("empty.zip", "contains no .skeleton file"),
    ],
)
def test_useless_paths_are_refused_with_the_key(tmp_path: Path, path: str, said: str):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("x")
    zipfile.ZipFile(tmp_path / "empty.zip", "w").close()
    with pytest.raises(UserError, match=f"^the.key is '.*{path}', .*{said}"):
        find_recordings(str(tmp_path / path), "the.key")


@pytest.mark.parametrize("inside_folder", [False, True])
def test_a_cut_archive_is_refused(tmp_path: Path, inside_folder: bool):
    path = zip_of(tmp_path / "all.zip", {A: skeleton_text(random_frames(0, 1))})
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(
        UserError, match=r"all.zip: not a complete zip archive \(.*download it again"
    ):
        find_recordings(str(tmp_path if inside_folder else path), "key")


def zip_of(path: Path, texts: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in texts.items():
            archive.writestr(f"nturgb+d_skeletons/{name}.skeleton", text)
    return path


def test_a_damaged_member_is_a_bad_recording(tmp_path: Path):
    path = zip_of(tmp_path / "all.zip", {A: skeleton_text(random_frames(0, 1, 1))})
    content = bytearray(path.read_bytes())
    content[200:300] = bytes(100)
    path.write_bytes(content)
    found, _ = find_recordings(str(path), "key")
    with (
        contextlib.closing(RecordingFiles()) as files,
        pytest.raises(BadRecording, match="damaged in the archive"),
    ):
        files.read(found[0])


def test_a_dangling_link_is_a_bad_recording(tmp_path: Path):
    (tmp_path / f"{A}.skeleton").symlink_to(tmp_path / "gone")
    found, _ = find_recordings(str(tmp_path), "key")
    with (
        contextlib.closing(RecordingFiles()) as files,
        pytest.raises(BadRecording, match="cannot be read: No such"),
    ):
        files.read(found[0])


def test_a_huge_file_is_a_bad_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recordings, "MAX_BYTES", 10)
    write_recordings(tmp_path, {A: b"x" * 11})
    found, _ = find_recordings(str(tmp_path), "key")
    with (
        contextlib.closing(RecordingFiles()) as files,
        pytest.raises(BadRecording, match="11 bytes; the limit for a recording is 10"),
    ):
        files.read(found[0])


def test_a_bad_recording_survives_the_way_between_processes():
    error = pickle.loads(pickle.dumps(BadRecording("a.skeleton", "line 3: wrong")))
    assert (str(error), error.reason) == ("a.skeleton, line 3: wrong", "line 3: wrong")


def test_missing_skeletons_are_535_names():
    names = missing_skeletons()
    assert len(names) == 535
    assert {"S001C002P005R002A008.skeleton", "S032C003P067R002A077.skeleton"} <= names
    assert all(name.startswith("S") and name.endswith(".skeleton") for name in names)


# --- many processes --------------------------------------------------------------------------


def test_a_killed_reader_process_is_an_error_and_not_an_endless_wait(tmp_path: Path):
    text = skeleton_text(random_frames(0, 1))
    write_recordings(tmp_path, {f"S001C001P001R{r:03}A001": text for r in range(200)})
    found, _ = find_recordings(str(tmp_path), "key")
    items = [Item(recording.name, "train", 0, recording) for recording in found]
    clips = in_order(NTUReader(normalise=False).read, items, workers=2)
    next(clips)
    for process in multiprocessing.active_children():
        process.kill()
    with pytest.raises(UserError, match="reader process was killed .* try --workers 1"):
        list(clips)


def test_members_that_unpack_to_more_than_they_say(tmp_path: Path):
    path = lying_archive(tmp_path / "all.zip", f"{A}.skeleton", b"1\n0\n")
    found, _ = find_recordings(str(path), "key")
    with (
        contextlib.closing(RecordingFiles()) as files,
        pytest.raises(BadRecording, match="is neither stored nor deflated"),
    ):
        files.read(found[0])


def test_a_text_of_newlines_is_refused_at_once():
    with pytest.raises(BadRecording, match=r"x, 2,000,002 lines; allowed: 2,000,000"):
        parse(b"1\n0\n" + b"\n" * 2_000_000, "x")
