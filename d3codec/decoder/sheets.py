"""One unit -> pixels from stored contact sheets: cut, then window and copies (spec sections 5 and 7). No torch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

import numpy as np

from d3codec import images
from d3codec.decoder.finish import finished
from d3codec.decoder.plan import Unit, sources_of
from d3codec.decoder.section_reader import Read
from d3codec.format.manifest import Group, SheetsRecipe

KEPT_SHEETS = 2  # decoded ones


class SheetRenderer:
    """Renders the units of one group whose images are stored.

    Arguments:
        group: its records. recipe: that of the group. classes: of the dataset.
        read: reads its section `img`, of `size` bytes.

    Raises (when made):
        SectionError: sheets that do not fill the section.
        MissingError: a Pillow that cannot read their format.
    """

    def __init__(self, group: Group, recipe: SheetsRecipe, classes: int, read: Read, size: int) -> None:
        self._group, self._recipe, self._read = group, recipe, read
        self._images = classes * group.images.sources
        images.require_format(recipe.format)
        self.sheets = -(-self._images // recipe.per_sheet)
        self._bounds = images.sheet_bounds(read(0, 4 * self.sheets), self.sheets, size)
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()

    def render(self, unit: Unit) -> np.ndarray:
        """Pixels of a unit, uint8 [images of the unit, height, width, 3].

        Raises:
            SectionError: a sheet that is not what the records say.
        """
        sources = sources_of(unit, self._group.images.copies + 1)
        places = [class_ * self._group.images.sources + source for class_, source in sources]
        return finished(self._group, self.tiles(places), sources)

    def tiles(self, places: Sequence[int]) -> np.ndarray:
        """Sources as they are stored, by their place in order of class and source: uint8 [places, height, width, 3].

        Raises as `render` does.
        """
        sheets = [divmod(place, self._recipe.per_sheet) for place in places]
        return np.stack([self._sheet(sheet)[tile] for sheet, tile in sheets])

    def check(self) -> Iterator[int]:
        """Checks the head of one sheet after the other, and yields its number. Raises as `render` does."""
        for number in range(self.sheets):
            images.check_sheet(*self._file(number))
            yield number

    def _sheet(self, number: int) -> np.ndarray:
        if number not in self._kept:
            self._kept[number] = images.decode_sheet(*self._file(number))
            while len(self._kept) > KEPT_SHEETS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(number)
        return self._kept[number]

    def _file(self, number: int) -> tuple[bytes, str, int, tuple[int, int], int]:
        """A sheet's bytes and what they must be, as `images.decode_sheet` takes it."""
        first, last = self._bounds[number : number + 2].tolist()
        count = min(self._recipe.per_sheet, self._images - number * self._recipe.per_sheet)
        return self._read(first, last), self._recipe.format, count, self._group.images.generated, self._recipe.columns
