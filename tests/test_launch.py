import dataclasses
import errno
import operator
import os
import pathlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Literal

import jax
import pytest
from absl import flags
from hypothesis import given
from hypothesis import strategies as st

from distilljax import launch
from distilljax.config import Config, option
from distilljax.types import InputError


@dataclasses.dataclass(frozen=True)
class Momentum(Config):
    decay: float = option(0.9, "Share of the last step that is kept.", low=0, high=1)


@dataclasses.dataclass(frozen=True)
class Bptt(Config):
    window: int | None = option(None, "Steps differentiated; none: all.", low=1)
    unroll: int = option(20, "Inner steps.", low=1)
    remat: bool = option(True, "Recompute what the reverse pass needs.")
    inner: Literal["sgd", "momentum"] = option("sgd", "Inner optimizer.")
    momentum: Momentum = option(
        Momentum(), "Of the inner loop.", selected_by=("inner", "momentum")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window is not None and self.window > self.unroll:
            raise InputError("the window exceeds the unroll length")


@dataclasses.dataclass(frozen=True)
class Dm(Config):
    lr: float = option(1.0, "Learning rate of the images.", above=0)


@dataclasses.dataclass(frozen=True)
class Settings(Config):
    method: Literal["bptt", "dm"] = option("bptt", "How the set is learned.")
    ipc: int = option(10, "Images per class.", low=1)
    scale: float = option(0.5, "A number.")
    soft: bool = option(False, "Learn the labels too.")
    name: str = option("", "Where the results go; a long sentence that has to be wrapped.")
    level: Literal[1, 2, "all"] = option(1, "A choice of several types.")
    limit: float | Literal["auto"] | None = option(
        "auto", "Several kinds of value.", high=9
    )
    label: str | None = option(None, "A string, or none.")
    temperature: float = option(2.0, "Of soft labels.", selected_by=("soft", True))
    bptt: Bptt = option(Bptt(unroll=30), "Unrolling.", selected_by=("method", "bptt"))
    dm: Dm = option(Dm(), "Matching distributions.", selected_by=("method", "dm"))
    evaluate: Dm = option(Dm(lr=0.1), "Training on the set.")


PRESETS = {
    "small": {"ipc": 1, "bptt": {"window": 5, "momentum.decay": 0.5}, "dm.lr": 3.0},
    "dm": {"method": "dm", "dm": {"lr": 4.0}},
}


def parse(*argv: str) -> Settings:
    return launch.parse(Settings, argv, presets=PRESETS)


def refusal(*argv: str) -> str:
    with pytest.raises(InputError) as caught:
        parse(*argv)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("argv", "path", "expected"),
    [
        (["--ipc=3"], "ipc", 3),
        (["--ipc", "3"], "ipc", 3),
        (["-ipc=3"], "ipc", 3),
        (["--ipc=3", "--ipc=4"], "ipc", 4),
        (["--scale=1e-3"], "scale", 1e-3),
        (["--scale", "-2"], "scale", -2.0),
        (["--soft"], "soft", True),
        (["--soft=false"], "soft", False),
        (["--soft", "--nosoft"], "soft", False),
        (["--name=a b=c"], "name", "a b=c"),
        (["--name="], "name", ""),
        (["--method=dm"], "method", "dm"),
        (["--level=2"], "level", 2),
        (["--level=all"], "level", "all"),
        (["--limit=auto"], "limit", "auto"),
        (["--limit=3"], "limit", 3.0),
        (["--limit=None"], "limit", None),
        (["--label=x"], "label", "x"),
        (["--label=x", "--label=none"], "label", None),
        (["--bptt.window=7"], "bptt.window", 7),
        (["--bptt.window=7", "--bptt.window="], "bptt.window", None),
        (["--nobptt.remat"], "bptt.remat", False),
        (["--bptt.inner=momentum", "--bptt.momentum.decay=0"], "bptt.momentum.decay", 0.0),
    ],
)
def test_parse_one_option(argv: list[str], path: str, expected: Any) -> None:
    value = operator.attrgetter(path)(parse(*argv))
    assert (type(value), value) == (type(expected), expected)


def test_no_arguments_give_the_defaults_of_the_fields() -> None:
    assert parse() == Settings()
    assert parse("--bptt.remat").bptt.unroll == 30


def test_rules_between_fields_see_all_flags() -> None:
    assert parse("--bptt.window=40", "--bptt.unroll=50").bptt.window == 40
    assert refusal("--bptt.window=40") == "bptt: the window exceeds the unroll length"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--ipc=ten"], "--ipc=ten: expected an integer"),
        (["--ipc=1.5"], "--ipc=1.5: expected an integer"),
        (["--ipc="], "--ipc=: expected an integer"),
        (["--ipc"], "missing value of --ipc"),
        (["--ipc=0"], "--ipc=0: must be at least 1"),
        (["--scale=x"], "--scale=x: expected a number"),
        (["--scale=nan"], "--scale=nan: must be a finite number"),
        (["--soft=maybe"], "--soft=maybe: expected true or false"),
        (["--nosoft=1"], "--nosoft=1 does not take an argument"),
        (["--method=mtt"], "--method=mtt: expected one of bptt, dm"),
        (["--limit=x"], "--limit=x: expected a number or one of auto or none"),
        (["--limit=10"], "--limit=10.0: must be at most 9"),
        (["--bptt.window=x"], "--bptt.window=x: expected an integer or none"),
        (["--bptt.window=0"], "--bptt.window=0: must be at least 1"),
        (
            ["--bptt.inner=momentum", "--bptt.momentum.decay=2"],
            "--bptt.momentum.decay=2.0: must be at most 1",
        ),
        (["--preset=large"], "--preset=large: expected one of small, dm"),
        (["run"], "unexpected argument 'run'; write --name=value"),
        (["ipc=3"], "unexpected argument 'ipc=3'; write --name=value"),
        (["--", "--ipc=3"], "unexpected argument '--ipc=3'; write --name=value"),
    ],
)
def test_refused_arguments(argv: list[str], message: str) -> None:
    assert refusal(*argv) == message


@pytest.mark.parametrize(
    ("flag", "hint"),
    [
        ("icp", "did you mean --ipc?"),
        ("bptt.windwo", "did you mean --bptt.window?"),
        ("window", "did you mean --bptt.window?"),
        ("lr", "did you mean --dm.lr or --evaluate.lr?"),
        ("bptt", "--helpfull lists all"),
        ("zzzzz", "--helpfull lists all"),
    ],
)
def test_unknown_flag_suggests_the_nearest(flag: str, hint: str) -> None:
    assert refusal(f"--{flag}=3") == f"unknown flag --{flag}; {hint}"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["--dm.lr=2"],
            "--dm.lr has no meaning with --method=bptt (it belongs to --method=dm)",
        ),
        # Also when the value given is the default.
        (
            ["--bptt.unroll=30", "--method=dm"],
            "--bptt.unroll has no meaning with --method=dm (it belongs to --method=bptt)",
        ),
        (
            ["--temperature=3"],
            "--temperature has no meaning with --nosoft (it belongs to --soft)",
        ),
        (
            ["--bptt.momentum.decay=0.5"],
            "--bptt.momentum.decay has no meaning with --bptt.inner=sgd "
            "(it belongs to --bptt.inner=momentum)",
        ),
        (
            ["--bptt.momentum.decay=0.5", "--method=dm"],
            "--bptt.momentum.decay has no meaning with --method=dm "
            "(it belongs to --method=bptt)",
        ),
        (
            ["--preset=dm", "--bptt.window=3"],
            "--bptt.window has no meaning with --method=dm (it belongs to --method=bptt)",
        ),
    ],
)
def test_flag_without_a_meaning_is_an_error(argv: list[str], message: str) -> None:
    assert refusal(*argv) == message


def test_selected_options_are_accepted() -> None:
    config = parse("--method=dm", "--dm.lr=2", "--soft", "--temperature=3")
    assert config == Settings(method="dm", dm=Dm(lr=2.0), soft=True, temperature=3.0)


def test_preset_lies_between_defaults_and_flags() -> None:
    window = Bptt(unroll=30, window=5)
    assert parse("--preset=small") == Settings(ipc=1, bptt=window)
    assert parse("--ipc=2", "--preset=small") == Settings(ipc=2, bptt=window)
    assert parse("--preset=small", "--bptt.window=none") == Settings(ipc=1)
    assert parse("--preset=dm") == Settings(method="dm", dm=Dm(lr=4.0))


def test_preset_values_apply_only_to_what_is_selected() -> None:
    assert parse("--preset=small", "--method=dm") == Settings(
        ipc=1, method="dm", dm=Dm(lr=3.0)
    )
    chosen = parse("--preset=small", "--bptt.inner=momentum")
    assert chosen.bptt.momentum == Momentum(decay=0.5)


def test_preset_with_an_unknown_option_is_a_bug_of_the_experiment() -> None:
    with pytest.raises(
        ValueError, match=r"preset 'x': there is no option bptt\.windwo"
    ) as e:
        launch.parse(Settings, ["--preset=x"], presets={"x": {"bptt": {"windwo": 3}}})
    assert not isinstance(e.value, InputError)


def test_preset_flag_exists_only_with_presets() -> None:
    with pytest.raises(InputError, match="unknown flag --preset"):
        launch.parse(Settings, ["--preset=small"])


def test_parse_leaves_the_global_flags_alone() -> None:
    before = set(flags.FLAGS)
    parse("--ipc=3")
    assert set(flags.FLAGS) == before


def test_fields_that_cannot_be_flags_are_refused() -> None:
    @dataclasses.dataclass(frozen=True)
    class Sequence(Config):
        seeds: tuple = option((), "Seeds.")

    @dataclasses.dataclass(frozen=True)
    class Dangling(Config):
        a: int = option(1, "A.", selected_by=("b", 1))

    @dataclasses.dataclass(frozen=True)
    class Taken(Config):
        preset: int = option(1, "A.")

    with pytest.raises(TypeError, match=r"tuple.* cannot be a flag"):
        launch.parse(Sequence, [])
    with pytest.raises(TypeError, match="a: selected by b, which is no sibling"):
        launch.parse(Dangling, [])
    with pytest.raises(TypeError, match="--preset is the launcher's own flag"):
        launch.parse(Taken, [], presets={"x": {}})


def test_command_line_holds_only_what_differs() -> None:
    assert launch.command_line("experiments.x", Settings()) == "python -m experiments.x"
    config = parse("--soft", "--name=it's", "--bptt.window=3", "--nobptt.remat", "--limit=")
    assert launch.command_line("experiments.x", config) == (
        "python -m experiments.x --soft '--name=it'\"'\"'s' --limit=none "
        "--bptt.window=3 --nobptt.remat"
    )


def test_command_line_leaves_out_what_has_no_meaning() -> None:
    config = Settings(method="dm", bptt=Bptt(unroll=3), temperature=9.0)
    assert launch.command_line("m", config) == "python -m m --method=dm"


@pytest.mark.parametrize("label", ["none", ""])
def test_command_line_refuses_what_flags_cannot_say(label: str) -> None:
    with pytest.raises(InputError, match=r"--label=.* cannot be written as a flag"):
        launch.command_line("m", Settings(label=label))


numbers = st.just(0.0) | st.floats(1.2e-38, 3.4e38) | st.floats(-3.4e38, -1.2e-38)


@st.composite
def configurations(draw: st.DrawFn) -> Settings:
    """Any configuration whose options without a meaning keep their defaults."""
    values: dict[str, Any] = {
        "method": draw(st.sampled_from(["bptt", "dm"])),
        "ipc": draw(st.integers(1, 2**31 - 1)),
        "scale": draw(numbers),
        "soft": draw(st.booleans()),
        "name": draw(st.text()),
        "level": draw(st.sampled_from([1, 2, "all"])),
        "limit": draw(st.none() | st.just("auto") | st.integers(-(10**9), 9).map(float)),
        "label": draw(
            st.none() | st.text(min_size=1).filter(lambda s: s.lower() != "none")
        ),
        "evaluate": {"lr": draw(st.floats(2e-38, 1))},
    }
    if values["soft"]:
        values["temperature"] = draw(numbers)
    if values["method"] == "dm":
        values["dm"] = {"lr": draw(st.floats(2e-38, 1))}
    else:
        bptt: dict[str, Any] = {
            "window": draw(st.none() | st.integers(1, 30)),
            "remat": draw(st.booleans()),
            "inner": draw(st.sampled_from(["sgd", "momentum"])),
        }
        if bptt["inner"] == "momentum":
            bptt["momentum"] = {"decay": draw(st.just(0.0) | st.floats(2e-38, 1))}
        values["bptt"] = bptt
    return Settings().replace(values)


@given(configurations())
def test_command_line_round_trip(config: Settings) -> None:
    python, dash_m, module, *argv = shlex.split(launch.command_line("a.b", config))
    assert (python, dash_m, module) == ("python", "-m", "a.b")
    assert parse(*argv) == config


def leaves(config: Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, Config):
            yield from leaves(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, value


@pytest.mark.parametrize("width", [80, 100])
def test_help_lists_every_flag_within_the_width(width: int) -> None:
    text = launch.help_text(
        Settings,
        program="python -m x",
        summary="Learns a set.",
        presets=PRESETS,
        width=width,
    )
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    usage = "usage: python -m x [--option=value ...]"
    assert lines[:3] == ["Learns a set.", "", usage]
    assert lines[3].startswith("Each option with its default")
    for path, default in leaves(Settings()):
        negatable = r"\[no\]" if isinstance(default, bool) else ""
        assert re.search(rf"^  --{negatable}{re.escape(path)}=", text, re.M), path
    assert "  --preset " in text
    assert "  --help " in text


def test_help_has_a_section_for_each_group() -> None:
    text = launch.help_text(Settings, program="x")
    headings = [line for line in text.splitlines() if re.match(r"\S", line)][2:]
    assert headings == [
        "Options",
        "--method=bptt options: Unrolling.",
        "--bptt.inner=momentum options: Of the inner loop.",
        "--method=dm options: Matching distributions.",
        "--evaluate.* options: Training on the set.",
    ]


def test_help_leaves_out_what_is_not_chosen() -> None:
    text = launch.help_text(Settings, program="x", argv=["--ipc=oops", "--help"])
    assert "--bptt.unroll" in text
    assert "--dm.lr" not in text
    assert "--bptt.momentum.decay" not in text
    (line,) = re.findall(r"^Options of .*(?:\n.*)*", text, re.M)
    assert "--method=dm" in line
    assert "--bptt.inner=momentum" in line
    assert "see --helpfull" in " ".join(line.split())
    text = launch.help_text(Settings, program="x", argv=["--method=dm"])
    assert "--dm.lr" in text
    assert "--bptt.unroll" not in text


def test_help_columns() -> None:
    text = launch.help_text(Settings, program="x")
    assert "--preset" not in text
    rows = [re.split(r" {2,}", line.strip(), maxsplit=1) for line in text.splitlines()]
    assert ["--ipc=10", "Images per class. [int >= 1]"] in rows
    assert ["--[no]soft=false", "Learn the labels too."] in rows
    assert ["--label=none", "A string, or none."] in rows
    assert ["--level=1", "A choice of several types. [1 | 2 | all]"] in rows
    assert ["--limit=auto", "Several kinds of value. [float <= 9 | auto | none]"] in rows
    flat = " ".join(text.split())
    assert "--bptt.window=none Steps differentiated; none: all. [int >= 1 | none]" in flat
    assert "--bptt.momentum.decay=0.9 Share of the last step that is kept." in flat
    assert "--name='' Where the results go" in flat
    assert "Of soft labels. Only with --soft. [float]" in flat


def test_a_long_flag_is_not_broken() -> None:
    group = dataclasses.make_dataclass(
        "Group", [("b" * 30, int, option(1, "A number."))], bases=(Config,), frozen=True
    )
    config = dataclasses.make_dataclass(
        "Long",
        [("a" * 30, group, option(group(), "A group."))],
        bases=(Config,),
        frozen=True,
    )
    text = launch.help_text(config, program="x")
    assert f"  --{'a' * 30}.{'b' * 30}=1\n" in text
    assert max(map(len, text.splitlines())) <= 100


def test_main_calls_run_and_shows_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launch, "enable_compilation_cache", lambda: None)
    seen: list[Settings] = []
    launch.main(Settings, seen.append, argv=["--ipc=3"])
    assert seen == [Settings(ipc=3)]
    launch.main(Settings, seen.append, argv=["--ipc=zero", "--help"])
    assert len(seen) == 1
    captured = capsys.readouterr()
    assert "--bptt.window" in captured.out
    assert captured.err == ""


def test_main_leaves_other_exceptions_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "enable_compilation_cache", lambda: None)

    def run(config: Settings) -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        launch.main(Settings, run, argv=[])


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "no space left on device at /data/x; make room"),
        (errno.EDQUOT, "disk quota exceeded at /data/x; make room"),
        (errno.EFBIG, "file too large at /data/x; raise the limit on the size of files "
         "(ulimit -f)"),
        (errno.EROFS, "read-only file system: /data/x; it can be neither read nor written; "
         "mend or move it"),
        (errno.EISDIR, "is a directory: /data/x; it can be neither read nor written; "
         "mend or move it"),
    ],
)  # fmt: skip
def test_no_room_and_no_place_are_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    said: str,
) -> None:
    monkeypatch.setattr(launch, "enable_compilation_cache", lambda: None)

    def run(config: Settings) -> None:
        raise OSError(number, os.strerror(number), "/data/x")

    with pytest.raises(SystemExit) as ended:
        launch.main(Settings, run, argv=[])
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {said}, the same command goes on\n"


def test_other_errors_of_files_keep_their_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(launch, "enable_compilation_cache", lambda: None)

    def run(config: Settings) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "/data/x")

    with pytest.raises(FileNotFoundError):
        launch.main(Settings, run, argv=[])


MODULE = '''"""Does what it is told.

Nothing else.
"""
import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from distilljax.config import Config as Base
from distilljax.config import option
from distilljax.types import InputError
from distilljax import launch


@dataclasses.dataclass(frozen=True)
class Config(Base):
    what: Literal["ok", "mistake", "interrupt", "bug"] = option("ok", "What to do.")


def run(config):
    if config.what == "mistake":
        raise InputError("a mistake,\\nof two lines")
    if config.what == "interrupt":
        raise KeyboardInterrupt
    if config.what == "bug":
        raise ValueError("a bug")
    print(jax.jit(lambda x: x + 1)(jnp.ones(())), __spec__.name)


if __name__ == "__main__":
    launch.main(Config, run)
'''


@pytest.fixture
def program(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "told.py"
    path.write_text(MODULE)
    return path


def start(
    program: pathlib.Path, *argv: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    root = pathlib.Path(__file__).parents[2]
    of_tests = (
        "JAX_COMPILATION_CACHE_DIR",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
    )
    inherited = {k: v for k, v in os.environ.items() if k not in of_tests}
    return subprocess.run(
        [sys.executable, "-m", program.stem, *argv],
        capture_output=True,
        text=True,
        check=False,
        env=inherited
        | {
            "PYTHONPATH": os.pathsep.join([str(program.parent), str(root)]),
            "XDG_CACHE_HOME": str(program.parent / "cache"),
            "JAX_PLATFORMS": "cpu",
        }
        | environment,
    )


@pytest.mark.parametrize(
    ("argv", "code", "stderr"),
    [
        (["--what=mistake"], 2, "error: a mistake, of two lines\n"),
        (["--waht=ok"], 2, "error: unknown flag --waht; did you mean --what?\n"),
        (
            ["--what=interrupt"],
            130,
            "interrupted; run the same command again to resume\n",
        ),
    ],
)
def test_program_ends_with_one_line(
    program: pathlib.Path, argv: list[str], code: int, stderr: str
) -> None:
    done = start(program, *argv)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", stderr)


def test_program_help(program: pathlib.Path) -> None:
    done = start(program, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(
        "Does what it is told.\n\nusage: python -m told [--option=value ...]\nEach option"
    )


def test_program_bug_keeps_its_traceback(program: pathlib.Path) -> None:
    done = start(program, "--what=bug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ValueError: a bug" in done.stderr


CORES = """
import dataclasses

import jax

from distilljax import launch, platforms
from distilljax.config import Config as Base
from distilljax.config import option


@dataclasses.dataclass(frozen=True)
class Config(Base):
    devices: int | None = option(None, "Devices.", low=1)
    shared: bool = option(True, "The work is shared.")

    def devices_of_cores(self):
        return self.devices or (platforms.cpu_threads() if self.shared else 1)


if __name__ == "__main__":
    launch.main(Config, lambda config: print(jax.device_count()), summary="Counts.")
"""


@pytest.mark.parametrize(
    ("argv", "xla_flags", "num"),
    [
        ([], "", 3),
        (["--noshared"], "", 1),
        (["--noshared", "--devices=2"], "", 2),
        (["--devices=9"], "", 3),
        (["--devices=2"], "--xla_force_host_platform_device_count=1", 1),
    ],
)
def test_cores_are_devices_where_the_options_want_it(
    tmp_path: pathlib.Path, argv: list[str], xla_flags: str, num: int
) -> None:
    (tmp_path / "told.py").write_text(CORES)
    done = start(tmp_path / "told.py", *argv, XLA_FLAGS=xla_flags, NPROC="3")
    assert (done.returncode, done.stdout) == (0, f"{num}\n"), done.stderr


def test_devices_of_other_options_are_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclasses.dataclass(frozen=True)
    class Compiled(Config):
        devices: str = option("1,8", "Numbers of devices to compile for.")

    monkeypatch.setattr(launch, "only_cpu", lambda: True)
    for name in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    launch._use_cores([Compiled()])


def test_compilation_cache_is_used_quietly(program: pathlib.Path) -> None:
    for _ in ("write", "read"):
        done = start(program)
        assert (done.returncode, done.stdout, done.stderr) == (0, "2.0 told\n", "")
    assert list((program.parent / "cache" / "distilljax" / "xla").glob("*/jit__lambda*"))
    logged = start(program, JAX_LOG_COMPILES="1").stderr
    assert "cache hit for 'jit__lambda'" in logged


def test_a_processor_has_a_cache_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {
        "one": "flags : avx fma\n",
        "same": "flags\t: fma avx\n",
        "other": "flags : avx",
    }
    names = {}
    for name, text in told.items():
        monkeypatch.setattr(pathlib.Path, "read_text", lambda self, text=text: text)
        names[name] = launch._processor()
    assert names["one"] == names["same"] != names["other"]


@pytest.mark.parametrize(
    ("platforms", "plugins", "libtpu", "expected"),
    [
        ("", (), None, True),
        ("", ("cuda",), None, False),
        ("", (), "libtpu", False),
        ("cpu", ("cuda",), "libtpu", True),
    ],
)
def test_devices_are_known_before_jax_starts(
    platforms: str,
    plugins: tuple[str, ...],
    libtpu: str | None,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: plugins)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: libtpu)
    assert launch.only_cpu() == expected


@pytest.fixture
def cache_setting() -> Iterator[None]:
    names = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.usefixtures("cache_setting")
def test_unwritable_cache_costs_a_warning(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    before = jax.config.jax_compilation_cache_dir
    launch.enable_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == before
    message = capsys.readouterr().err
    assert re.fullmatch(r"warning: programs are compiled anew at each start: .+\n", message)


@pytest.mark.usefixtures("cache_setting")
def test_environment_wins_over_the_default_cache(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    before = jax.config.jax_compilation_cache_dir
    launch.enable_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == before
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    launch.enable_compilation_cache()
    found = pathlib.Path(jax.config.jax_compilation_cache_dir or "")
    assert found.parent == tmp_path / "distilljax" / "xla"


@pytest.mark.usefixtures("cache_setting")
@pytest.mark.parametrize("given", [None, "7"])
def test_small_programs_are_kept_unless_the_environment_says_otherwise(
    given: str | None, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "jax_persistent_cache_min_compile_time_secs"
    jax.config.update(name, 7.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delenv(name.upper(), raising=False)
    if given:
        monkeypatch.setenv(name.upper(), given)
    launch.enable_compilation_cache()
    assert getattr(jax.config, name) == (7.0 if given else 0.0)


def test_several_values_are_several_configurations() -> None:
    words = ["--ipc=3", "--seeds=0"]
    with pytest.raises(InputError, match="unknown flag --seed"):
        launch.parse_many(Settings, words)
    found = launch.parse_many(
        Settings, ["--soft", "--sweep.ipc=1,2", "--sweep.bptt.inner=sgd,momentum"]
    )
    assert found is not None
    assert {name: (c.ipc, c.bptt.inner, c.soft) for name, c in found.items()} == {
        "ipc1-inner_sgd": (1, "sgd", True),
        "ipc1-inner_momentum": (1, "momentum", True),
        "ipc2-inner_sgd": (2, "sgd", True),
        "ipc2-inner_momentum": (2, "momentum", True),
    }
    assert launch.parse_many(Settings, ["--ipc=3"]) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sweep.ipc=1,1"], "--sweep.ipc=1,1: a value, or the flag, is given twice"),
        (["--sweep.ipc=1,"], "give values with commas"),
        (["--sweep.ipc"], "give values with commas"),
        (["--sweep.ipc=1,x"], "ipc"),
        (["--sweep.ipc=1,2", "--ipc=3"], "--ipc is given besides its list of values"),
        (["--sweep.ipcs=1,2"], "unknown flag --ipcs; did you mean --ipc"),
        (["--sweep.scale=0.5,5e-1", "--sweep.level=1,2", "--sweep.dm.lr=1,2"], "dm.lr"),
    ],
)
def test_lists_of_values_that_cannot_be_met(words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        launch.parse_many(Settings, words)


def test_programs_that_are_not_to_be_compiled_are_refused() -> None:
    with jax.disable_jit(), pytest.raises(InputError, match="JAX_DISABLE_JIT is set"):
        launch._start_jax()
