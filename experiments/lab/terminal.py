"""Tables and text on the terminal."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table


class TextTable(Table):
    """A table whose cells are shown as they are: no markup is read from them."""

    def add_row(self, *cells: object, **options: object) -> None:
        """Adds a row of texts."""
        shown = [escape(cell) if isinstance(cell, str) else cell for cell in cells]
        super().add_row(*shown, **options)  # type: ignore[arg-type]


def new_table(
    title: str,
    columns: Sequence[str],
    *,
    caption: str | None = None,
    left: Sequence[str] = (),
    wrap: Sequence[str] | None = None,
) -> TextTable:
    """Returns an empty table.

    Args:
      title: above it.
      columns: heads; the first is set left, the others right.
      caption: below it.
      left: further columns that are set left.
      wrap: columns that may take several lines; the first if None.
    """
    table = TextTable(
        title=escape(title),
        title_justify="left",
        caption=None if caption is None else escape(caption),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for number, column in enumerate(columns):
        first = number == 0
        table.add_column(
            escape(column),
            justify="left" if first or column in left else "right",
            no_wrap=not (first if wrap is None else column in wrap),
        )
    return table


def show_table(table: Table, width: int = 0) -> None:
    """Prints a table; where stdout is no terminal it may take `width` columns."""
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, width)
    console.print(table)
