"""A configuration as command-line flags: parsing, help text, and the shortest command.

A group of options is written with dots: `--bptt.window=40`.
"""

import contextlib
import dataclasses
import difflib
import itertools
import operator
import re
import shlex
import textwrap
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

from absl import flags

from distilljax.config import LARGEST_INT, Config, FieldError, alternatives, describe
from distilljax.types import InputError

AnyConfig = TypeVar("AnyConfig", bound=Config)
# Name -> values, or a function of the flags given that returns them.
Presets = Mapping[
    str, Mapping[str, Any] | Callable[[Mapping[str, object]], Mapping[str, Any]]
]


def parse(
    config_class: type[AnyConfig],
    argv: Sequence[str],
    *,
    presets: Presets | None = None,
) -> AnyConfig:
    """Parses a command line into a configuration, without global flags.

    Args:
      config_class: its fields are int, float, str, bool, `Literal`, a union of these
        with None, or a group of further options (another `Config`).
      argv: arguments after the program name.
      presets: name -> values, with nested mappings or dotted names. `--preset=NAME`
        overrides defaults and is overridden by other flags. Values for groups that are not
        selected are ignored. A preset may be a function of the given flags (dotted name ->
        value).

    Raises:
      InputError: an unknown flag, an invalid value, or a flag of a group that is not
        selected. The message names the flag as it is typed.
      TypeError: a field of `config_class` has an unsupported type.
      ValueError: a preset has an unknown option.
    """
    options = {o.path: o for section in _sections(config_class()) for o in section.options}
    parsed = flags.FlagValues()
    for option in options.values():
        _define(parsed, option.path, option.annotation)
    if presets:
        _define(parsed, "preset", Literal[tuple(presets)])
    _read(parsed, argv)

    given = {path: parsed[path].value for path in options if parsed[path].present}
    preset: dict[str, Any] = {}
    if presets and parsed["preset"].present:
        name = str(parsed["preset"].value)
        chosen = presets[name]
        if callable(chosen):
            chosen = chosen(given)
        preset = dict(flatten(chosen))
        if unknown := sorted(preset.keys() - options.keys()):
            raise ValueError(f"preset {name!r}: there is no option {', '.join(unknown)}")
    changes = preset | given
    values = {path: option.default for path, option in options.items()} | changes
    for path in given:
        if unmet := options[path].unmet_condition(values):
            selector, wanted = unmet
            raise InputError(
                f"--{path} has no meaning with {_spell(selector, values[selector])} "
                f"(it belongs to {_spell(selector, wanted)})"
            )
    selected = {p: v for p, v in changes.items() if not options[p].unmet_condition(values)}
    try:
        return config_class().replace(_nest(selected))
    except FieldError as error:
        raise InputError(message(error)) from None


def parse_many(
    config_class: type[AnyConfig],
    argv: Sequence[str],
    *,
    presets: Presets | None = None,
) -> dict[str, AnyConfig] | None:
    """Parses a command line that gives several values of some flags.

    `--seeds=0,1,2` gives several values of `--seed`, `--sweep.FLAG=a,b` of any other flag.
    Every combination is a configuration of its own, the last flag varying first.

    Args:
      config_class: see `parse`.
      argv: arguments after the program name.
      presets: see `parse`.

    Returns:
      Name -> configuration, named such as `ipc10-seed1`; None where no flag has several
      values.

    Raises:
      InputError: see `parse`; also for a flag that is given both ways, and for a value that
        comes twice.
    """
    varied: dict[str, list[str]] = {}
    others = list[str]()
    for word in argv:
        flag, equals, text = word.lstrip("-").partition("=")
        several = flag == "seeds" or flag.startswith("sweep.")
        if not (several and word.startswith("-")):
            others.append(word)
            continue
        path = "seed" if flag == "seeds" else flag.removeprefix("sweep.")
        values = [value.strip() for value in text.split(",")]
        if not equals or not all(values):
            raise InputError(f"--{flag}={text}: give values with commas, as --seeds=0,1,2")
        if path in varied or len(set(values)) < len(values):
            raise InputError(f"--{flag}={text}: a value, or the flag, is given twice")
        varied[path] = values
    if not varied:
        return None
    given = {word.lstrip("-").partition("=")[0] for word in others}
    if both := sorted(given & varied.keys()):
        raise InputError(f"--{both[0]} is given besides its list of values; drop one")
    found: dict[str, AnyConfig] = {}
    for chosen in itertools.product(*varied.values()):
        words = [f"--{p}={v}" for p, v in zip(varied, chosen, strict=True)]
        name = "-".join(
            re.sub(r"[^\w.+]+", "_", path.rpartition(".")[2] + "_" * v[:1].isalpha() + v)
            for path, v in zip(varied, chosen, strict=True)
        )
        if name in found:
            raise InputError(f"--sweep: two runs would be called {name}; vary fewer flags")
        found[name] = parse(config_class, [*others, *words], presets=presets)
    return found


# Whether the experiments were started by `distilljax NAME`, see `distilljax.commands`.
by_command = False
_NO_BREAK = "\0"  # a space of the help text at which no line is broken


def program(module: str) -> list[str]:
    """Returns the words that start a module as a person types them."""
    package, _, name = module.partition(".")
    if by_command and package == "experiments":
        return ["distilljax", name]
    return ["python", "-m", module]


def process(module: str) -> list[str]:
    """Returns the arguments after the interpreter that start a module as a process."""
    package, _, name = module.partition(".")
    if by_command and package == "experiments":
        return ["-P", "-m", "distilljax", name]  # -P: nothing of the working directory
    return ["-m", module]


def message(error: InputError) -> str:
    """Returns the text of an error; a refused field is named as its flag is typed."""
    if isinstance(error, FieldError):
        return f"--{error.path}={_text(error.value)}: {error.reason}"
    return str(error)


def command_line(module: str, config: Config) -> str:
    """Returns the shortest command for `config`: values that differ from the defaults.

    Options that do not apply, such as those of a method that is not selected, are omitted.

    Args:
      module: the program's module; `__spec__.name` inside it.
      config: the configuration.

    Raises:
      InputError: a value cannot be written as a flag: the string "none" if None is allowed
        too.
    """
    options = [o for section in _sections(type(config)()) for o in section.options]
    values = {o.path: operator.attrgetter(o.path)(config) for o in options}
    words = program(module)
    for option in options:
        value = values[option.path]
        if value == option.default or option.unmet_condition(values):
            continue
        if _Parser(option.annotation).parse(_text(value)) != value:
            raise InputError(f"--{option.path}={value!r} cannot be written as a flag")
        words.append(_spell(option.path, value))
    return shlex.join(words)


def help_text(
    config_class: type[Config],
    *,
    program: str,
    summary: str = "",
    presets: Presets | None = None,
    several: bool = False,
    argv: Sequence[str] | None = None,
    width: int = 100,
) -> str:
    """Returns the text of `--help`: a section for each group of options.

    Args:
      config_class: the options.
      program: command that starts the program, for the usage line.
      summary: one-sentence description.
      presets: the choices of `--preset`, if any.
      several: whether flags may be given several values, see `parse_many`.
      argv: arguments besides `--help`; rare options are left out, and those of a method,
        network and so on unless these, or the defaults, choose it. None for all options.
      width: terminal width; lines are shorter.
    """
    lines = [summary, ""] if summary else []
    lines.append(f"usage: {program} [--option=value ...]")
    lines.append("Each option with its default, and in brackets the values it takes.")
    sections = list(_sections(config_class()))
    rows = {
        section.title: [
            one.row()
            for one in section.options
            if argv is None or not one.metadata.get("rare")
        ]
        for section in sections
    }
    left_out: dict[str, list[str]] = {}
    if argv is not None:
        sections, left_out = _chosen_sections(sections, argv)
    add = rows[sections[0].title].append
    if argv is None:
        add(("--help", "Print the options of what is chosen, and exit."))
        add(("--helpfull", "Print this text and exit."))
    else:
        add(("--help", "Print this text and exit."))
        add(("--helpfull", "Print every option and exit."))
    if several:
        add(("--seeds", "A run for each seed, as --seeds=0,1,2, and one table at the end."))
        help = "A run for each value of any flag, as --sweep.ipc=1,10; lists combine."
        add(("--sweep.FLAG", help))
    if presets:
        help = "Named settings; flags that are given as well win."
        listed = f"[{' | '.join(presets)}]"
        if argv is not None:
            listed = "--helpfull lists their names."
        rows[sections[0].title].insert(0, ("--preset", f"{help} {listed}"))
    first = _first_width([row for table in rows.values() for row in table])
    for section in sections:
        if table := rows[section.title]:
            heading = ": ".join(filter(None, (section.title, section.help)))
            lines += ["", *textwrap.wrap(heading, width)]
            for row in table:
                lines += _row_lines(row, first, width)
    if left_out:
        choices = ", ".join(f"--{n}={'|'.join(values)}" for n, values in left_out.items())
        text = f"Options of {choices}: add the choice to --help, or see --helpfull."
        lines += ["", *textwrap.wrap(text, width, break_on_hyphens=False)]
    return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class _Option:
    """A flag: a leaf of the tree of configurations."""

    path: str
    annotation: Any
    default: Any
    metadata: Mapping[str, Any]  # as set by `distilljax.config.option`
    conditions: tuple[
        tuple[str, object], ...
    ]  # (path of a selector, required value), outermost first

    def unmet_condition(self, values: Mapping[str, object]) -> tuple[str, object] | None:
        return next(
            ((p, wanted) for p, wanted in self.conditions if values[p] != wanted), None
        )

    def row(self) -> tuple[str, str]:
        """Returns the cells of its row in the help text: flag and default, explanation."""
        negatable = "[no]" if bool in alternatives(self.annotation) else ""
        help = self.metadata.get("help", "")
        if self.metadata.get("selected_by"):
            help += f" Only with {_spell(*self.conditions[-1])}."
        default = _text(self.default) or "''"
        kinds = [a for a in alternatives(self.annotation) if a is not bool]
        if set(kinds) - {str, type(None)}:
            shown = " | ".join(self._kind(a) for a in kinds)
            help += f" [{shown}]"
        return f"--{negatable}{self.path}={default}", help

    def _kind(self, annotation: Any) -> str:
        if _is_literal(annotation):
            return " | ".join(map(_text, typing.get_args(annotation)))
        if annotation not in (int, float):
            return "text" if annotation is str else "none"
        low, high, above = (self.metadata.get(k) for k in ("low", "high", "above"))
        high = None if high == LARGEST_INT else high
        bounds = [annotation.__name__]
        if low is not None and high is not None:
            bounds.append(f"{low}..{high}")
        else:
            signs = ((">=", low), (">", above), ("<=", high))
            bounds += [f"{sign} {bound}" for sign, bound in signs if bound is not None]
        return " ".join(bounds).replace(" ", _NO_BREAK)


@dataclasses.dataclass(frozen=True)
class _Section:
    """The options of a configuration without those of its groups."""

    title: str
    help: str
    options: list[_Option]


def _sections(
    config: Config,
    prefix: str = "",
    conditions: tuple[tuple[str, object], ...] = (),
    title: str = "Options",
    help: str = "",
) -> Iterator[_Section]:
    hints = typing.get_type_hints(type(config))
    options: list[_Option] = []
    groups: list[_Section] = []
    for field in dataclasses.fields(config):
        path, value = prefix + field.name, getattr(config, field.name)
        needs, heading = conditions, f"--{path}.* options"
        if selected_by := field.metadata.get("selected_by"):
            selector, wanted = selected_by
            if selector not in hints:
                raise TypeError(
                    f"{path}: selected by {selector}, which is no sibling field"
                )
            needs += ((prefix + selector, wanted),)
            heading = f"{_spell(prefix + selector, wanted)} options"
        if isinstance(value, Config):
            group_help = field.metadata.get("help", "")
            groups += _sections(value, f"{path}.", needs, heading, group_help)
        else:
            options.append(_Option(path, hints[field.name], value, field.metadata, needs))
    yield _Section(title, help, options)
    yield from groups


def _chosen_sections(
    sections: Sequence[_Section], argv: Sequence[str]
) -> tuple[list[_Section], dict[str, list[str]]]:
    """Returns the sections that apply with the given flags, and the choices of others.

    Flags that cannot be read are passed over.
    """
    options = {o.path: o for section in sections for o in section.options}
    values = {path: option.default for path, option in options.items()}
    for word in argv:
        path, _, text = word.lstrip("-").partition("=")
        if path in options and word.startswith("-"):
            with contextlib.suppress(ValueError):
                values[path] = _Parser(options[path].annotation).parse(text)
    chosen, left_out = [], dict[str, list[str]]()
    for section in sections:
        unmet = [o.unmet_condition(values) for o in section.options]
        if not all(unmet) or not unmet:
            chosen.append(section)
            continue
        selector, wanted = unmet[0] or ("", None)
        held = left_out.setdefault(selector, [])
        held += [_text(wanted)] * (_text(wanted) not in held)
    return chosen, left_out


_ABSL_PARSERS: Mapping[Any, type[flags.ArgumentParser]] = {
    int: flags.IntegerParser,
    float: flags.FloatParser,
    bool: flags.BooleanParser,
    str: flags.ArgumentParser,
}


class _Parser(flags.ArgumentParser[Any]):
    """Parses a value as one of the alternatives of an annotation."""

    def __init__(self, annotation: Any) -> None:
        super().__init__()
        self.annotation = annotation
        # str accepts every text, so it is tried last.
        self.alternatives = sorted(alternatives(annotation), key=lambda kind: kind is str)
        for kind in self.alternatives:
            if not (kind in _ABSL_PARSERS or kind is type(None) or _is_literal(kind)):
                raise TypeError(f"{annotation} cannot be a flag")

    def parse(self, argument: str) -> Any:
        for kind in self.alternatives:
            with contextlib.suppress(ValueError):
                return self._parse_as(kind, argument)
        raise ValueError(f"expected {describe(self.annotation)}")

    @staticmethod
    def _parse_as(kind: Any, argument: str) -> Any:
        if kind in _ABSL_PARSERS:
            return _ABSL_PARSERS[kind]().parse(argument)
        if _is_literal(kind):
            choices = {_text(choice): choice for choice in typing.get_args(kind)}
            return choices[flags.EnumParser(choices).parse(argument)]
        if argument.lower() in ("none", ""):
            return None
        raise ValueError(argument)


def _is_literal(annotation: Any) -> bool:
    return typing.get_origin(annotation) is Literal


def _define(values: flags.FlagValues, name: str, annotation: Any) -> None:
    if name in values:
        raise TypeError(f"--{name} is the launcher's own flag; rename the field")
    values[name] = flags.Flag(
        _Parser(annotation),
        serializer=None,
        name=name,
        default=None,
        help_string=name,
        boolean=bool in alternatives(annotation),
        allow_using_method_names=True,
    )


def _read(values: flags.FlagValues, argv: Sequence[str]) -> None:
    """Parses into `values`; errors of absl become `InputError`s."""
    try:
        positional = values(["", *argv])[1:]
    except flags.UnrecognizedFlagError as error:
        name = error.flagname
        near = [path for path in values if path.endswith(f".{name}")]
        near = near or difflib.get_close_matches(name, values, n=1)
        hint = f"did you mean --{' or --'.join(near)}?" if near else "--helpfull lists all"
        raise InputError(f"unknown flag --{name}; {hint}") from None
    except (flags.Error, ValueError) as error:
        message = str(error).replace("Missing value for flag", "missing value of")
        raise InputError(message.removeprefix("flag ")) from None
    if positional:
        raise InputError(f"unexpected argument {positional[0]!r}; write --name=value")


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the entries of nested mappings with dotted names: ("bptt.window", 40)."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _nest(values: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path, value in values.items():
        *groups, name = path.split(".")
        group = nested
        for key in groups:
            group = group.setdefault(key, {})
        group[name] = value
    return nested


def _text(value: object) -> str:
    """Returns a value as it is typed after the equals sign."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _spell(path: str, value: object) -> str:
    """Returns the flag that sets an option."""
    if isinstance(value, bool):
        return f"--{path}" if value else f"--no{path}"
    return f"--{path}={_text(value)}"


def _first_width(rows: Sequence[tuple[str, str]]) -> int:
    """Returns the width of the first column; longer flags have a line of their own."""
    return min(30, max(len(flag) for flag, _ in rows))


def _row_lines(row: tuple[str, str], first: int, total: int) -> list[str]:
    flag, help = row
    # A long flag has its own line, so that it can be copied.
    lines = [f"  {flag}"] if len(flag) > first else []
    start = "" if lines else flag
    room = max(20, total - first - 4)
    for text in textwrap.wrap(help, room, break_on_hyphens=False) or [""]:
        shown = text.replace(_NO_BREAK, " ")
        lines.append(f"  {start:{first}}  {shown}".rstrip())
        start = ""
    return lines
