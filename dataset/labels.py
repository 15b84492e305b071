"""The number of a class, from the forms in which data sets store it."""

from __future__ import annotations

from typing import Any

import numpy as np


def class_number(value: Any, num_class: int = 0) -> int | None:
    """The number of a class that is an integer, a whole float, an array or list of one of these,
    or one-hot: a 1 and zeros. None for anything else, e.g. true, 1.5, text, or several classes.

    num_class: the length of one-hot vectors, where it is known; else 0 for any.
    """
    try:
        array = np.asarray(value)
    except ValueError:  # ragged
        return None
    if array.dtype.kind not in "iuf" and not (array.dtype.kind == "b" and array.size > 1):
        return None
    numbers = array.reshape(-1)
    if array.size == 1:
        number = float(numbers[0])
        return int(numbers[0]) if number.is_integer() else None
    is_one_hot = np.count_nonzero(numbers) == 1 and bool(numbers.max() == 1)
    if is_one_hot and array.size == max(array.shape) and num_class in (0, array.size):
        return int(numbers.argmax())
    return None
