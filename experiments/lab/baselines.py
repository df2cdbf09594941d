"""Options that name real images which distilled sets are compared with."""

from distilljax.comparison.real import BASELINES
from experiments.lab.options import parse_choices


def parse_baselines(text: str, field: str = "baselines", *, least: int = 1) -> list[str]:
    """Returns the names in a list with commas, at least `least`.

    Raises:
      FieldError: of the option `field`: a name that is not of `BASELINES`, or comes
        twice, or too few.
    """
    return parse_choices(text, field, BASELINES, "baseline", least=least)
