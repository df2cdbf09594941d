"""PyTorch files without PyTorch: what they hold, and nothing else, comes back."""

import pickle
import zipfile

import numpy as np
import pytest

from distilljax.disk import archives
from distilljax.io.foreign import pickles
from distilljax.types import InputError

from .foreign_sets import number, tensor, text, write_pt


@pytest.fixture
def path(tmp_path):
    return tmp_path / "set.pt"


def refused(path):
    """The message of a refused file: one line that names it."""
    with pytest.raises(InputError) as caught:
        pickles.read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


@pytest.mark.parametrize(
    ("storage", "dtype"),
    [
        ("FloatStorage", "f4"),
        ("DoubleStorage", "f8"),
        ("HalfStorage", "f2"),
        ("LongStorage", "i8"),
        ("IntStorage", "i4"),
        ("ShortStorage", "i2"),
        ("CharStorage", "i1"),
        ("ByteStorage", "u1"),
        ("BoolStorage", "?"),
    ],
)
def test_a_tensor_of_each_type(path, storage, dtype):
    array = np.random.default_rng(0).integers(0, 2, (2, 3)).astype(dtype)
    write_pt(path, tensor(storage, "0", 6, 0, (2, 3), (3, 1)), {"0": array})
    back = pickles.read(path)
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert back.tobytes() == array.tobytes()


@pytest.mark.parametrize(
    ("offset", "size", "stride", "expected"),
    [
        (0, (3, 4), (1, 3), lambda x: x.reshape(4, 3).T),
        (2, (5,), (2,), lambda x: x[2::2][:5]),
        (4, (2, 2), (4, 0), lambda x: x[[[4, 4], [8, 8]]]),
        (11, (), (), lambda x: x[11]),
        (12, (0, 4), (4, 1), lambda x: x[:0].reshape(0, 4)),
    ],
)
def test_views_of_a_storage(path, offset, size, stride, expected):
    numbers = np.arange(12, dtype=np.float32)
    write_pt(path, tensor("FloatStorage", "7", 12, offset, size, stride), {"7": numbers})
    np.testing.assert_array_equal(pickles.read(path), expected(numbers))


@pytest.mark.parametrize(
    ("count", "offset", "size", "stride"),
    [
        (12, 0, (4, 4), (4, 1)),
        (12, 12, (1,), (1,)),
        (12, 1, (12,), (1,)),
        (12, 0, (2,), (1 << 30,)),
        (12, 0, (1 << 20, 1 << 20), (0, 0)),
        (13, 0, (2,), (1,)),
        (12, -1, (2,), (1,)),
        (12, 0, (-2, -2), (1, 1)),
        (12, 4, (2,), (-1,)),
        (12, 0, (2, 2), (1,)),
    ],
)
def test_a_tensor_beyond_its_numbers(path, count, offset, size, stride):
    stream = tensor("FloatStorage", "0", count, offset, size, stride)
    write_pt(path, stream, {"0": np.zeros(12, np.float32)})
    refused(path)


def test_plain_values_and_numpy_numbers(path):
    """As DC's accuracies are pickled: numpy.core.multiarray.scalar."""
    dtype = (
        b"cnumpy\ndtype\n"
        + text("f8")
        + b"\x89\x88\x87R(K\x03"
        + text("<")
        + b"NNN"
        + number(-1)
        + number(-1)
        + b"K\x00tb"
    )
    raw = np.float64(0.2862).tobytes().decode("latin1").encode()
    as_text = b"X" + len(raw).to_bytes(4, "little") + raw
    data = b"c_codecs\nencode\n" + as_text + text("latin1") + b"\x86R"
    for module in (b"numpy.core", b"numpy._core"):
        scalar = b"c" + module + b".multiarray\nscalar\n" + dtype + data + b"\x86R"
        stream = b"}(" + text("a") + b"](" + scalar + b"K\x05NeX\x01\x00\x00\x00b\x88u"
        write_pt(path, stream, {})
        assert pickles.read(path) == {"a": [0.2862, 5, None], "b": True}


CODE = [
    b"cos\nsystem\n" + text("touch %s") + b"\x85R",
    b"cposix\nsystem\n" + text("touch %s") + b"\x85R",
    b"cbuiltins\neval\n" + text("open('%s', 'w')") + b"\x85R",
    b"csubprocess\nPopen\n(]" + text("touch") + b"a" + text("%s") + b"atR",
    b"cnumpy\nload\n" + text("%s") + b"\x85R",
    b"ctorch\nload\n" + text("%s") + b"\x85R",
    b"ctorch._utils\n__builtins__\n",
    text("os") + text("system") + b"\x93" + text("touch %s") + b"\x85R",  # STACK_GLOBAL
    b"(" + text("touch %s") + b"ios\nsystem\n",  # INST
    b"(cos\nsystem\n" + text("touch %s") + b"o",  # OBJ
]


@pytest.mark.parametrize("stream", CODE, ids=range(len(CODE)))
def test_a_pickle_that_would_run_code(path, stream):
    marker = path.with_name("executed")
    padded = str(marker).encode()
    for place in range(len(stream)):  # the length of the text that holds the marker
        if stream[place : place + 1] == b"X" and b"%s" in stream[place:]:
            size = int.from_bytes(stream[place + 1 : place + 5], "little")
            if b"%s" in stream[place + 5 : place + 5 + size]:
                longer = (size - 2 + len(padded)).to_bytes(4, "little")
                stream = stream[: place + 1] + longer + stream[place + 5 :]
                break
    stream = stream.replace(b"%s", padded)
    write_pt(path, b"}(" + text("data") + stream + b"u", {})
    assert "which could run code" in refused(path)
    assert not marker.exists()


def test_the_payload_of_these_tests_is_a_live_one(tmp_path):
    marker = tmp_path / "executed"
    pickle.loads(b"\x80\x02" + b"cos\nsystem\n" + text(f"touch {marker}") + b"\x85R.")
    assert marker.exists()


def test_functions_cannot_be_changed(path):
    """BUILD sets attributes of what lies on the stack."""
    state = b"}" + text("_function") + b"K\x01s"
    for slots in (state + b"b", b"N" + state + b"\x86b"):
        write_pt(path, b"ccollections\nOrderedDict\n" + slots, {})
        refused(path)
    write_pt(path, b"ccollections\nOrderedDict\n)R", {})
    assert pickles.read(path) == {}


@pytest.mark.parametrize(
    "stream",
    [
        b"K\x01r\xff\xff\xff\x7f",  # a memo of two thousand million places
        b"K\x01p2147483647\n",
        b"X\xff\xff\xff\xffabc",
        b"\x8e" + (1 << 50).to_bytes(8, "little"),  # bytes that are not there
        b"\x96" + (1 << 50).to_bytes(8, "little"),
        b"R",
        b"\xff",
        text("storage") + b"Q",
        b"ctorch\nFloatStorage\n)R",
        b"ctorch._utils\n_rebuild_tensor_v2\n(NK\x00))\x89NtR",
        b"c_codecs\nencode\n" + text("a") + text("rot13") + b"\x86R",
        b"cnumpy\ndtype\n" + text("O8") + b"\x89\x88\x87R",
    ],
    ids=range(12),
)
def test_a_damaged_pickle(path, stream):
    write_pt(path, stream, {})
    refused(path)


@pytest.mark.parametrize(("size", "fits"), [(16 << 20, True), ((16 << 20) + 1, False)])
def test_a_pickle_of_more_than_16_mib_is_not_read(path, size, fits):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(size))
    assert (f"unfolds to {size} bytes" in refused(path)) != fits


@pytest.mark.parametrize(
    ("place", "fits"), [(8, True), (9, True), (10, False), (1 << 30, False)]
)
def test_a_memo_is_no_larger_than_its_pickle(place, fits):
    stream = b"\x80\x02Nr" + place.to_bytes(4, "little") + b"."
    assert len(stream) == 9
    if fits:
        assert pickles._checked(stream) == stream
    else:
        with pytest.raises(InputError, match="a memo larger than itself"):
            pickles._checked(stream)


def good(path):
    array = np.arange(600, dtype=np.float32)
    write_pt(path, tensor("FloatStorage", "0", 600, 0, (600,), (1,)), {"0": array})
    return array


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.7, 0.95, 0.999])
def test_a_truncated_file(path, share):
    good(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert "truncated" in refused(path)


def test_damaged_bytes_are_noticed_or_harmless(path):
    array = good(path)
    whole = path.read_bytes()
    num_refused = 0
    for position in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        try:
            np.testing.assert_array_equal(pickles.read(path), array)
        except InputError:
            num_refused += 1
            refused(path)
    assert num_refused > len(whole) / 7 / 2


def test_files_of_other_kinds(path):
    assert refused(path).endswith("no such file")
    path.write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
    assert "PyTorch before 1.6" in refused(path)
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(3))
    assert "no data.pkl" in refused(path)
    write_pt(path, b"N", {}, byteorder="big")
    assert "big-endian" in refused(path)
    write_pt(path, tensor("FloatStorage", "5", 1, 0, (1,), (1,)), {})
    refused(path)


def test_a_bomb_is_refused_before_it_unfolds(path, monkeypatch):
    """100 MB of zeros in 100 kB; what the archive declares is compared first."""
    stream = tensor("FloatStorage", "0", 25_000_000, 0, (25_000_000,), (1,))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + stream + b".")
        archive.writestr("archive/data/0", bytes(100_000_000))
    assert path.stat().st_size < 200_000
    read = []
    monkeypatch.setattr(archives, "LIMIT", 50_000_000)
    inflate = zipfile.ZipFile.read
    monkeypatch.setattr(
        zipfile.ZipFile,
        "read",
        lambda self, info: read.append(info.filename) or inflate(self, info),
    )
    assert "it unfolds to 100000000 bytes, and at most 50000000 are read" in refused(path)
    assert read == ["archive/data.pkl"]


VALUE = {
    "data": [[np.arange(24, dtype=np.float32).reshape(2, 3, 4), np.array([1, 0])]],
    "rate": np.asarray(0.5, np.float32),
    "none": (None, True, False, -3, 1 << 40, -(1 << 40), 0.1, "é", ()),
    "empty": [np.zeros((0, 2), np.float16), [], {}],
}


def assert_same(ours, theirs):
    assert type(ours) is type(theirs)
    if isinstance(ours, np.ndarray):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_array_equal(ours, theirs)
    elif isinstance(ours, dict):
        assert list(ours) == list(theirs)
        for name in ours:
            assert_same(ours[name], theirs[name])
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    else:
        assert ours == theirs


def test_what_is_written_comes_back(path):
    pickles.write(path, VALUE)
    assert_same(pickles.read(path), VALUE)
    turned = np.arange(6.0).reshape(2, 3).T
    pickles.write(path, turned)
    assert_same(pickles.read(path), np.ascontiguousarray(turned))
    pickles.write(path, np.array([1.5, 2.5], ">f4"))
    assert_same(pickles.read(path), np.array([1.5, 2.5], "<f4"))


def test_pytorch_reads_what_is_written(path):
    torch = pytest.importorskip("torch")
    pickles.write(path, VALUE)

    def arrays(value):
        if isinstance(value, torch.Tensor):
            return value.numpy()
        if isinstance(value, dict):
            return {name: arrays(each) for name, each in value.items()}
        return type(value)(map(arrays, value)) if isinstance(value, list | tuple) else value

    assert_same(arrays(torch.load(path, weights_only=True)), VALUE)


def test_what_pytorch_writes_is_read(path):
    torch = pytest.importorskip("torch")
    x = torch.arange(24.0).reshape(2, 3, 4)
    value = {
        "a": [x, x[1:, ::2], x.transpose(0, 2), torch.nn.Parameter(x[0])],
        "b": (torch.tensor(2.5, dtype=torch.float64), torch.ones(3, dtype=torch.int64)),
    }
    torch.save(value, path)
    back = pickles.read(path)
    for name in value:
        for ours, theirs in zip(back[name], value[name], strict=True):
            assert_same(ours, theirs.detach().numpy().copy(order="C"))


@pytest.mark.parametrize("value", [object(), np.array(["a"]), np.zeros(2, np.complex64)])
def test_what_has_no_place_is_not_written(path, value):
    with pytest.raises(InputError):
        pickles.write(path, [value])
    assert not list(path.parent.iterdir())
