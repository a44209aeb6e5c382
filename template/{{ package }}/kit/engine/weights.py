"""Many numbers in columns: one of them is drawn, or the largest are found, without a sort."""

import numpy as np
from numpy.typing import NDArray

ROWS = 128
_BLOCKS = ((0, 16), (16, 48), (48, ROWS))  # rows that are looked at together

Values = NDArray[np.float32]


class Columns:
    """Values (N,) as a table (rows, columns); what is left over are columns of one."""

    def __init__(self, values: Values, rows: int = ROWS) -> None:
        whole = values.size - values.size % rows
        self.values = values
        self.table = values[:whole].reshape(rows, -1)
        self.rest = values[whole:]

    def total(self) -> float:
        """The sum of all."""
        return float(self._column_sums().sum(dtype=np.float64))

    def _column_sums(self) -> Values:
        return np.concatenate([self.table.sum(axis=0), self.rest])

    def id_of(self, column: int, row: int) -> int:
        """Where a column's row is among the values."""
        rows, columns = self.table.shape
        return row * columns + column if column < columns else (rows - 1) * columns + column


class Tops(Columns):
    """The columns' largest, by which the largest of all are found."""

    def __init__(self, values: Values, rows: int) -> None:
        super().__init__(values, rows)
        self.tops = np.concatenate([self.table.max(axis=0), self.rest])

    def columns(self, floor: np.float32) -> NDArray[np.int64]:
        """Those in which something reaches a floor."""
        return np.flatnonzero(self.tops >= floor)

    def within(self, columns: NDArray[np.int64]) -> Values:
        """All values in these columns."""
        width = self.table.shape[1]
        inner, rest = columns[columns < width], columns[columns >= width]
        return np.concatenate([self.table[:, inner].reshape(-1), self.rest[rest - width]])

    def id_within(self, columns: NDArray[np.int64], place: int) -> int:
        """Where one of the values in these columns is among all."""
        rows, width = self.table.shape
        inner = int(np.count_nonzero(columns < width))
        if place >= rows * inner:
            return self.id_of(int(columns[place - (rows - 1) * inner]), 0)
        row, column = divmod(place, inner)
        return self.id_of(int(columns[column]), row)


class Weights(Columns):
    """Weights, and the sums of the columns, by which one is drawn."""

    def __init__(self, values: Values) -> None:
        super().__init__(values)
        self._sums = self._column_sums()
        self._ends = np.cumsum(self._sums, dtype=np.float64)

    def total(self) -> float:
        """The sum of all."""
        return float(self._ends[-1])

    def place(self, share: float) -> int:
        """Where the weights' sum reaches this share of all of it, in the order of the columns."""
        column, left = _place_of(self._ends, share * self.total())
        if column >= self.table.shape[1]:
            return self.id_of(column, 0)
        row, _ = _place_of(np.cumsum(self.table[:, column], dtype=np.float64), left)
        return self.id_of(column, row)

    def is_within(self, weight: np.float32, mass: float) -> bool:
        """Whether those that are heavier than this one fall short of a mass."""
        heavy = np.flatnonzero(self._sums > weight)
        if heavy.size > self._sums.size // 8:
            missing = self.total() - mass
            return self.at_most(weight, missing) > missing
        part = self.table[:, heavy[heavy < self.table.shape[1]]]  # no other has a heavier one
        heavier = part[part > weight].sum(dtype=np.float64)
        return bool(heavier + self.rest[self.rest > weight].sum(dtype=np.float64) < mass)

    def at_most(self, weight: np.float32, enough: float = np.inf) -> float:
        """The sum of those that are no heavier; or of some of them, which is more than enough."""
        total = float(self.rest[self.rest <= weight].sum())
        for first, last in _BLOCKS:
            block = self.table[first:last]
            some = np.empty_like(block)  # a mask of numbers: one of bools costs a cast
            np.less_equal(block, weight, out=some, casting="unsafe")
            np.multiply(block, some, out=some)
            total += float(some.sum(axis=0).sum(dtype=np.float64))
            if total > enough:
                break
        return total


def _place_of(ends: NDArray[np.float64], target: float) -> tuple[int, float]:
    """The first place where the sums exceed the target, and how much of it is left before that."""
    place = int(ends.searchsorted(target, side="right"))
    if place == len(ends):  # by rounding alone: the last that has a weight
        place = int(ends.searchsorted(ends[-1]))
    return place, target - float(ends[place - 1] if place else 0.0)
