"""Vectorised parsing of the first three numbers of many lines.

Splitting lines into bytes objects and calling float() on them takes most of the time of reading
recordings. Here the text stays one block of bytes: the spaces of a line are the set bits of one
64-bit word, and the digits of a field are the bytes of another, so that a few dozen array
operations convert all fields, with results that are bit-identical to float().
"""

from __future__ import annotations

import numpy as np

_SPACE, _MINUS, _DIGIT_AND_DOT = ord(" "), np.uint64(ord("-")), np.uint64(0x2E30)  # "0." reversed
_ONE, _BYTE, _TWO_BYTES = np.uint64(1), np.uint64(0xFF), np.uint64(0xFFFF)
_EIGHT_ZEROS = np.uint64(0x3030303030303030)  # "00000000"
_EIGHT_SIXES = np.uint64(0x0606060606060606)
_HIGH_HALVES = np.uint64(0xF0F0F0F0F0F0F0F0)
_POWERS_OF_TEN = 10.0 ** np.arange(9)


def first_three(data: bytes, starts: np.ndarray) -> np.ndarray | None:
    """The first three fields of the lines that start at the byte offsets `starts` (L,), none
    below 8: (L, 3) float64.

    Fields are separated by single spaces. None if a field is not a number or has another
    separator; the caller must then parse line by line.
    """
    begins, ends = _fields(data, starts)
    values, is_plain = _plain_decimals(data, begins, ends)
    odd = np.flatnonzero(~is_plain)  # such as 1e-05: one in a hundred
    for i, begin, end in zip(odd.tolist(), begins[odd].tolist(), ends[odd].tolist()):
        field = data[begin:end]
        try:
            values[i] = float(field)
        except ValueError:
            return None
        # float() accepts the line break that a short line includes, and 1_0 for 10.
        if field != field.strip() or b"_" in field:
            return None
    return values.reshape(3, len(starts)).T


def _fields(data: bytes, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Offsets at which the three fields of each line begin and end: two arrays (3 * L,), with all
    first fields before all second fields."""
    text = np.frombuffer(data, np.uint8)
    is_space = np.packbits(text == _SPACE, bitorder="little")
    # Words may begin at any byte; at least 57 bits of each belong to the line.
    words = _words(np.append(is_space, np.zeros(8, np.uint8)))
    spaces = words[starts >> 3] >> (starts & 7).astype(np.uint64)
    begins = np.empty((3, len(starts)), np.int64)
    ends = np.empty_like(begins)
    begin = starts
    for n in range(3):
        lowest = spaces & (~spaces + _ONE)
        # The exponent is the position of the bit; without a bit, the field ends before it begins.
        ends[n] = starts + (np.frexp(lowest.astype(np.float64))[1] - 1)
        begins[n] = begin
        begin = ends[n] + 1
        spaces ^= lowest
    return begins.ravel(), ends.ravel()


def _plain_decimals(
    data: bytes, begins: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the fields (F,) float64, and which of them are valid: those of the form
    [-]d.d to [-]d.dddddddd, which nearly all coordinates in metres have.

    A field is (whole * 10**places + fraction) / 10**places; both operands are exact, so one rounded
    division gives the nearest double, as float() does (Clinger, PLDI 1990).
    """
    words = _words(data)
    first = words[np.minimum(begins, len(words) - 1)]
    is_plain = begins < len(words)
    fraction = words[ends - 8]
    negative = (first & _BYTE) == _MINUS
    first >>= negative.astype(np.uint64) << np.uint64(3)  # drops the sign
    first ^= _DIGIT_AND_DOT
    whole = first & _TWO_BYTES  # 0 to 9 for a digit and a dot
    places = ends - begins - 2 - negative
    is_plain &= (whole < 10) & (places > 0) & (places <= 8)
    places = np.clip(places, 0, 8)
    preceding = (64 - 8 * places).astype(np.uint64)  # bits before the fraction
    fraction ^= _EIGHT_ZEROS
    fraction >>= preceding
    fraction <<= preceding
    is_plain &= ((fraction + _EIGHT_SIXES | fraction) & _HIGH_HALVES) == 0  # only digits
    scale = _POWERS_OF_TEN[places]
    values = (whole * scale + _eight_digits(fraction)) / scale
    np.negative(values, out=values, where=negative)
    return values, is_plain


def _eight_digits(digits: np.ndarray) -> np.ndarray:
    """The number whose eight decimal digits are the bytes of each uint64, lowest byte first.
    Digits are combined to pairs, then to fours, then to eight (Lemire, SPE 2021)."""
    digits = digits * np.uint64(10 * 2**8 + 1) >> np.uint64(8)
    digits &= np.uint64(0x00FF00FF00FF00FF)
    digits = digits * np.uint64(100 * 2**16 + 1) >> np.uint64(16)
    digits &= np.uint64(0x0000FFFF0000FFFF)
    return digits * np.uint64(10000 * 2**32 + 1) >> np.uint64(32)


def _words(data: bytes | np.ndarray) -> np.ndarray:
    """The little-endian uint64 that begins at each byte: a view with 7 fewer items than bytes."""
    return np.ndarray((len(data) - 7,), "<u8", data, strides=(1,))
