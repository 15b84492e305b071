"""Streaming networks in dygraph: equal to the clip network at both ends of every stream."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from configs.model import RTSTGCNArgs
from errors import UserError
from model.network import ClipNetwork, Shape
from model.rt_stgcn import RTSTGCN, causal
from model.streaming.network import StreamingNetwork
from model.streaming.plan import INSIDE, SHARE, Frames, Plan, Slot, WindowSum
from model.streaming.state import RunningSum, StreamState
from tests.networks import efficientgcn, randomise, rt_stgcn, stgcn
from tests.streams import Player, clip_logits, relative, tensors_of

LENGTHS = (1, 2, 3, 4, 7, 16, 33, 64)
BLOCKS = ((8, 1), (12, 2), (12, 1), (16, 2))
EFFICIENT: dict[str, Any] = {
    "stem_channel": 8,
    "block_args": ((8, 1, 1), (8, 2, 1), (8, 2, 2)),
    "fusion_stage": 1,
    "branches": 2,
}


def network_of(kind: str) -> ClipNetwork:
    """A small network with random weights and statistics, in evaluation mode."""
    made = {
        "ST-GCN": lambda: stgcn(block_args=BLOCKS, persons=1),
        "ST-GCN, kernel 3": lambda: stgcn(block_args=BLOCKS, kernel_size=3, persons=1),
        "ST-GCN, kernel 1": lambda: stgcn(block_args=BLOCKS, kernel_size=1, persons=1),
        "ST-GCN, one block": lambda: stgcn(block_args=((8, 2),), kernel_size=5, persons=1),
        "ST-GCN, two strides in a row": lambda: stgcn(
            block_args=((8, 2), (8, 2), (8, 2)), kernel_size=3, persons=1
        ),
        **{
            f"EfficientGCN, {layer}": lambda layer=layer: efficientgcn(
                persons=1, att_type="none", layer_type=layer, **EFFICIENT
            )
            for layer in ("Basic", "Bottleneck", "Sep", "SG")
        },
        **{
            f"EfficientGCN, {att}": lambda att=att: efficientgcn(
                persons=1, att_type=att, kernel_size=(3, 2), **EFFICIENT
            )
            for att in ("fa", "stja-causal", "pa-causal", "ca-causal", "ja-causal")
        },
        **{
            f"RT-ST-GCN, {taps} taps": lambda taps=taps: rt_stgcn(
                persons=1, kernel_size=taps, in_channel=8, block_args=((8, 1), (12, 2), (12, 1))
            )
            for taps in (1, 3, 9, 69)
        },
    }
    network = made[kind]()
    randomise(network)
    network.eval()
    return network


KINDS = ["ST-GCN", "ST-GCN, kernel 3", "ST-GCN, kernel 1", "ST-GCN, one block"]
KINDS += ["ST-GCN, two strides in a row"]
KINDS += [f"EfficientGCN, {layer}" for layer in ("Basic", "Bottleneck", "Sep", "SG")]
KINDS += [f"EfficientGCN, {a}-causal" for a in ("stja", "pa", "ca", "ja")] + ["EfficientGCN, fa"]
KINDS += [f"RT-ST-GCN, {taps} taps" for taps in (1, 3, 9, 69)]
FORMS: dict[str, dict[str, Any]] = {"strided": {}, "dilated": {"dilated": True}}
FORMS["8 frames a step"] = {"chunk": 8}
every_form = pytest.mark.parametrize("form", FORMS)


def played(streaming: StreamingNetwork, clips: list[np.ndarray]) -> Player:
    """All streams to their ends, in one batch as long as they last."""
    player = Player(streaming, clips)
    while player.open:
        player.step(player.open)
    return player


@every_form
@pytest.mark.parametrize("kind", KINDS)
def test_a_flushed_stream_equals_the_clip_network(kind: str, form: str) -> None:
    """Start, end and all, although the frames behind the end are not zeros."""
    network = network_of(kind)
    clips = [tensors_of(network, length, seed=length) for length in LENGTHS]
    player = played(StreamingNetwork(network, **FORMS[form]), clips)
    for n, clip in enumerate(clips):
        assert relative(player.clip_logits(n), clip_logits(network, clip)[0]) < 1e-5


@pytest.mark.slow
@every_form
def test_every_length_up_to_350(form: str) -> None:
    network = stgcn(block_args=((4, 1), (4, 2), (4, 2)), kernel_size=9, persons=1)
    randomise(network)
    network.eval()
    clips = [tensors_of(network, length, seed=length) for length in range(1, 351)]
    player = played(StreamingNetwork(network, **FORMS[form]), clips)
    for n, clip in enumerate(clips):
        assert relative(player.clip_logits(n), clip_logits(network, clip)[0]) < 1e-5


def test_the_full_size_network_of_the_paper() -> None:
    """The delay of 76 frames is 19 steps of 4; the receptive field is 153 frames."""
    network = stgcn(persons=1)
    randomise(network)
    network.eval()
    streaming = StreamingNetwork(network)
    plan = streaming.plan
    assert (plan.chunk, plan.receptive_field, plan.delay, plan.stride) == (4, 153, 76, 4)
    assert (plan.output.lag, plan.steps(300)) == (19, 75 + 19)
    clip = tensors_of(network, 33)
    player = played(streaming, [clip])
    assert relative(player.clip_logits(0), clip_logits(network, clip)[0]) < 1e-5


@every_form
@pytest.mark.parametrize("kind", ["ST-GCN", "EfficientGCN, stja-causal", "RT-ST-GCN, 9 taps"])
def test_streams_of_one_batch_start_when_they_like(kind: str, form: str) -> None:
    network = network_of(kind)
    clips = [tensors_of(network, length, seed=length) for length in (40, 23, 61)]
    streaming = StreamingNetwork(network, **FORMS[form])
    alone = [played(streaming, [clip]).clip_logits(0) for clip in clips]
    player = Player(streaming, clips)
    for step in range(10_000):
        running = [n for n in player.open if step >= 3 * n and (step + n) % 4]  # some wait
        if running:
            player.step(running)
        if not player.open:
            break
    assert not player.open
    for n, expected in enumerate(alone):
        assert relative(player.clip_logits(n), expected) < 1e-5


@every_form
@pytest.mark.parametrize("kind", ["ST-GCN", "EfficientGCN, Basic", "RT-ST-GCN, 3 taps"])
def test_receptive_field_delay_and_stride_are_as_declared(kind: str, form: str) -> None:
    """Perturbing one frame changes exactly the positions whose field it is in."""
    network = network_of(kind)
    streaming = StreamingNetwork(network, **FORMS[form])
    plan, frame, length = streaming.plan, 40, 80
    clip = tensors_of(network, length)
    other = clip.copy()
    other[..., frame] += 10
    before, after = played(streaming, [clip]), played(streaming, [other])
    stride = 1 if form == "dilated" else plan.stride
    changed = {at for at, row in before.logits[0].items() if (row != after.logits[0][at]).any()}
    first = frame - plan.delay
    last = first + plan.receptive_field - 1
    assert changed and set(before.logits[0]) == set(range(0, length, stride))
    if kind == "RT-ST-GCN, 3 taps":  # with taps two frames apart, not every frame is in the field
        assert min(changed) == first and max(changed) == last
    else:
        assert changed == {at for at in before.logits[0] if first <= at <= last}


def test_the_dilated_form_is_the_strided_one_at_every_phase() -> None:
    """Away from the start, where phases differ in what they see before the clip."""
    network = network_of("ST-GCN")
    clip = tensors_of(network, 90)
    dilated = played(StreamingNetwork(network, dilated=True), [clip]).logits[0]
    for phase in range(4):
        strided = played(StreamingNetwork(network), [clip[..., phase:]]).logits[0]
        inside = [at for at in strided if 40 <= at <= 50]
        assert inside
        for at in inside:
            assert relative(dilated[at + phase], strided[at]) < 1e-5


def test_golden_logits_of_rt_stgcn_frame_by_frame(samples: Path) -> None:
    golden = np.load(samples / "golden/rtstgcn_ln_k9_fulltaps.npz")
    args = RTSTGCNArgs()
    layers = [(channel, causal(9, spacing)) for channel, spacing in args.block_args]
    network = RTSTGCN(Shape((3,), 1, 52), golden["A"], args.in_channel, layers, args.drop_prob)
    randomise(network)
    x = np.random.RandomState(1).standard_normal((1, 3, 60, 25)).astype(np.float32)
    for chunk in (1, 7):
        player = played(StreamingNetwork(network, chunk=chunk), [x.transpose(0, 3, 1, 2)])
        got = np.stack([player.logits[0][t] for t in range(60)], axis=1)  # (52, 60)
        assert relative(got, golden["logits"][0]) < 1e-5


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize(("taps", "spacing"), [(1, 1), (3, 2), (69, 2)])
def test_a_running_sum_does_not_drift(taps: int, spacing: int, count: int) -> None:
    """Also where a step has more frames than the window."""
    rng = np.random.RandomState(0)
    frames = (100 * rng.standard_normal((1, 2, 20_000, 3))).astype(np.float32)
    total = RunningSum(WindowSum(taps, spacing), (1, 2, count, 3))
    for first in range(0, 20_000, count):
        past = total.past(first, count)
        for n in range(count) if first in (0, 5, 140, 19_990, 19_995) else ():
            t = first + n
            window = [i for i in range(t, max(t - taps * spacing, -1), -spacing) if i < first]
            expected = frames[:, :, window].astype(np.float64).sum(axis=2)
            np.testing.assert_allclose(past[:, :, n], expected, rtol=1e-6, atol=1e-6)
        total.push(first, frames[:, :, first : first + count])


def test_a_state_goes_through_a_file_and_back() -> None:
    network = network_of("EfficientGCN, stja-causal")
    streaming = StreamingNetwork(network)
    clip = tensors_of(network, 50)
    whole, player = played(streaming, [clip]), Player(streaming, [clip])
    for _ in range(5):
        player.step([0])
    stored = {name: array.copy() for name, array in player.states[0].arrays().items()}
    player.states[0] = StreamState(streaming.plan, 1)
    player.states[0].load(stored, "s.npz")
    while player.open:
        player.step([0])
    np.testing.assert_array_equal(player.clip_logits(0), whole.clip_logits(0))
    sums, convs, delays = (
        next(name for name in stored if name.endswith(end)) for end in ("_sum", "_conv", "_delay")
    )
    for name, bad in {
        "first": np.array(-4),
        sums: np.full_like(stored[sums], np.nan),
        convs: stored[convs][..., :24],
        delays: stored[delays].astype(np.float64),
    }.items():
        broken = {**stored, name: bad}
        with pytest.raises(UserError, match=f"s.npz: {name} "):
            StreamState(streaming.plan, 1).load(broken, "s.npz")


def test_the_mask_is_zero_outside_of_the_clip() -> None:
    inside, share = Slot(INSIDE, Frames(2, 1, 3, 2)), Slot(SHARE, Frames(1, 4, 0, 1))
    plan = Plan(4, (inside, share), {}, {}, Frames(4, 1, 1, 1), 1, 0, 4)
    # Indices of the first slot: first / 2 - 3 and the next one; a clip of 9 frames has 5 of them.
    assert plan.mask(4, None).reshape(-1).tolist() == [0, 1, 1 / 2]
    assert plan.mask(8, None).reshape(-1).tolist() == [1, 1, np.float32(1 / 3)]
    assert plan.mask(12, 9).reshape(-1).tolist() == [1, 1, 1 / 4]
    assert plan.mask(16, 9).reshape(-1).tolist() == [0, 0, np.float32(1 / 5)]
    assert [plan.positions(first, 9) for first in (0, 4, 12, 16)] == [[None], [0], [8], [None]]
    longer = dataclasses.replace(plan, chunk=8, output=Frames(4, 1, 1, 2))
    assert [longer.positions(first, 9) for first in (0, 8)] == [[None, 0], [4, 8]]
    assert longer.positions(16, None) == [12, 16] and longer.steps(9) == 2
    assert plan.steps(9) == 4


def test_plans_are_read_strictly() -> None:
    plan = StreamingNetwork(network_of("EfficientGCN, stja-causal")).plan
    tree = plan.to_mapping()
    assert Plan.from_mapping(tree, "meta") == plan
    for broken in (
        {},
        {**tree, "chunk": 0},
        {**tree, "chunk": "4"},
        {**tree, "slots": [{"kind": "other", "frames": tree["output"]}]},
        {**tree, "output": {**tree["output"], "spacing": 0}},
        {**tree, "states": {"a": [1, 2]}},
        {**tree, "more": 1},
    ):
        with pytest.raises(UserError, match="meta: not of a streaming model"):
            Plan.from_mapping(broken, "meta")


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"chunk": 6}, "a step of 6 frames; allowed: multiples of 4 up to 64"),
        ({"chunk": 68}, "a step of 68 frames; allowed: multiples of 4 up to 64"),
        ({"chunk": 4, "dilated": True}, "a step of 4 frames; allowed: 1 in the dilated form"),
    ],
)
def test_steps_of_other_lengths_are_refused(form: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        StreamingNetwork(network_of("ST-GCN"), **form)


def test_what_needs_the_whole_clip_is_refused() -> None:
    network = efficientgcn(persons=1, att_type="stja", **EFFICIENT)
    with pytest.raises(UserError, match="STJointAttention takes means over the whole clip.*4101"):
        StreamingNetwork(network)
    with pytest.raises(UserError, match="Linear has no streaming form; allowed: EfficientGCN, RT"):
        from model.streaming.forms import trunk
        from model.streaming.step import Signal, Step

        signal = Signal(paddle.zeros([1]), Frames(1, 1, 0, 1))
        trunk(paddle.nn.Linear(1, 1), Step(False), signal)
