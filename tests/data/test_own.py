"""Folders, tables and usual .npz files, against the arrays that were written into them."""

import io
import json

import numpy as np
import pytest

from distilljax.data import load, own
from distilljax.types import InputError
from tests.data.deep import deep_png, deep_tiff

PIL = pytest.importorskip("PIL.Image")
CLASSES = ("ant", "bee", "cat")


def pixels(num, seed=0, side=8, channels=3):
    shape = (num, side, side) + (() if channels == 1 else (channels,))
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def save(folder, images, ending="png"):
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        PIL.fromarray(image).save(folder / f"{number:03}.{ending}")


def png(image):
    file = io.BytesIO()
    PIL.fromarray(image).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def pets(tmp_path):
    """FOLDER/SPLIT/CLASS/NUMBER.png, and the images in that order."""
    held = {}
    for number, split in enumerate(("train", "val", "test")):
        for label, name in enumerate(CLASSES):
            images = pixels(6 - 2 * number, 10 * number + label)
            save(tmp_path / "pets" / split / name, images)
            held[split, name] = images
    return tmp_path / "pets", held


def joined(held, *splits):
    return np.concatenate([held[s, c] for s in splits for c in CLASSES])


def test_a_folder_with_splits(pets):
    path, held = pets
    data = load(str(path))
    np.testing.assert_array_equal(data.train.images, joined(held, "train"))
    np.testing.assert_array_equal(data.test.images, joined(held, "test"))
    np.testing.assert_array_equal(data.train.labels, np.repeat(range(3), 6))
    assert (data.class_names, data.source, data.name) == (CLASSES, "folder", "pets")
    assert data.notes == (
        "the 12 images of validation are left out; ,train=train+validation trains on them "
        "too",
    )


def test_splits_are_chosen(pets):
    path, held = pets
    data = load(f"{path},train=train+val,test=test")
    np.testing.assert_array_equal(data.train.images, joined(held, "train", "val"))
    assert data.notes == ()
    assert data.source == "folder,train=train+validation,test=test"
    data = load(f"{path},test=validation")
    np.testing.assert_array_equal(data.test.images, joined(held, "val"))


def test_a_share_of_each_class_is_set_aside(pets, tmp_path):
    path, held = pets
    data = load(f"{path / 'train'},test_share=0.34,seed=3")
    assert np.bincount(data.test.labels).tolist() == [2, 2, 2]
    both = np.concatenate([data.train.images, data.test.images])
    everything = {image.tobytes() for image in joined(held, "train")}
    assert {image.tobytes() for image in both} == everything
    again = load(f"{path / 'train'},test_share=0.34,seed=3")
    assert again.fingerprint == data.fingerprint
    other = load(f"{path / 'train'},test_share=0.34,seed=4")
    assert other.fingerprint != data.fingerprint
    assert "6 images are set aside to test on, 12 to train on (seed 3)" in data.notes


def test_per_class_takes_a_part_of_what_more_would_take(pets):
    path, _ = pets
    few, more = (load(f"{path},per_class={number}").train for number in (2, 4))
    assert np.bincount(few.labels).tolist() == [2, 2, 2]
    assert {i.tobytes() for i in few.images} < {i.tobytes() for i in more.images}


def test_resizing_is_that_of_pillow_and_is_told(tmp_path):
    wide = np.random.default_rng(0).integers(0, 256, (4, 20, 30, 3), np.uint8)
    for name in CLASSES[:2]:
        save(tmp_path / "wide" / name, wide + np.uint8(CLASSES.index(name)))
    with pytest.raises(InputError, match=r"no test images: .*wide,test_share=0\.2 sets"):
        load(str(tmp_path / "wide"))
    asked = f"{tmp_path / 'wide'},test_share=0.25,size=10"
    crop, stretch, pad = (load(asked + f",fit={fit}") for fit in own.request.FITS)
    resized = [PIL.fromarray(i).resize((10, 10), PIL.Resampling.BICUBIC) for i in wide]
    found = {i.tobytes() for i in stretch.train.images[stretch.train.labels == 0]}
    assert len(found) == 3
    assert found < {image.tobytes() for image in resized}
    # The middle 20 columns; a resize is a convolution, so the rim of the box reads outside.
    middle = [
        np.asarray(PIL.fromarray(i[:, 5:25]).resize((10, 10), PIL.Resampling.BICUBIC))
        for i in wide
    ]
    near = [
        min(np.abs(image.astype(int) - one)[:, 2:-2].max() for one in middle)
        for image in crop.train.images[:3]
    ]
    assert max(near) <= 1
    assert (pad.train.images[:, 0] == 0).all()
    assert (pad.train.images[:, 4] != 0).any()
    assert crop.notes[1] == (
        "8 of 8 images resized to 10 x 10 (bicubic); 8 cropped to the middle, ,fit=pad or "
        ",fit=stretch keeps the whole"
    )


def test_colours_are_converted_on_request_alone(tmp_path):
    grey, rgb = pixels(4, channels=1), pixels(4, 1)
    save(tmp_path / "d" / "grey", grey)
    save(tmp_path / "d" / "rgb", rgb)
    with pytest.raises(InputError, match=r"not all grey or all RGB \(4 grey, 4 rgb;"):
        load(f"{tmp_path / 'd'},test_share=0.25")
    data = load(f"{tmp_path / 'd'},test_share=0.25,colour=rgb")
    assert data.image_shape == (8, 8, 3)
    found = {image.tobytes() for image in data.train.images[data.train.labels == 0]}
    assert found < {np.repeat(image[..., None], 3, 2).tobytes() for image in grey}
    assert "4 of 8 images converted from L to RGB" in data.notes
    data = load(f"{tmp_path / 'd'},test_share=0.25,colour=grey")
    luma = np.round(rgb @ [0.299, 0.587, 0.114])
    chosen = data.train.images[data.train.labels == 1][..., 0].astype(float)
    gaps = [min(np.abs(image - one).max() for one in luma) for image in chosen]
    assert max(gaps) <= 1


def test_transparent_parts_are_white_and_turned_images_are_turned(tmp_path):
    clear = np.zeros((8, 8, 4), np.uint8)
    clear[:4] = (9, 8, 7, 255)
    for name in CLASSES[:2]:
        save(tmp_path / "d" / name, [clear, clear, clear])
    upright = PIL.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    exif = PIL.Exif()
    exif[0x0112] = 6
    upright.convert("RGB").save(tmp_path / "d" / "ant" / "z.png", exif=exif)
    data = load(f"{tmp_path / 'd'},test_share=0.3,colour=rgb")
    both = np.concatenate([data.train.images, data.test.images])
    assert sorted({tuple(image[7, 0]) for image in both}) == [(63,) * 3, (255,) * 3]
    assert "transparent parts of images were put on white" in data.notes
    assert "1 of 7 images turned as their EXIF data say" in data.notes


def test_imbalance_and_shared_images_are_told(tmp_path):
    save(tmp_path / "d" / "train" / "many", pixels(9))
    save(tmp_path / "d" / "train" / "few", pixels(3, 1))
    save(tmp_path / "d" / "test" / "many", pixels(3))
    save(tmp_path / "d" / "test" / "few", pixels(1, 2))
    notes = load(str(tmp_path / "d")).notes
    assert notes == (
        "the classes are imbalanced, from 3 training images (few) to 9 (many): guessing "
        "many is right on 75% of the test images; ,per_class=3 trains on as many of each",
        "3 of 4 test images are training images too, pixel for pixel; the accuracy on them "
        "says nothing",
    )
    balanced = load(f"{tmp_path / 'd'},per_class=3")
    assert np.bincount(balanced.train.labels).tolist() == [3, 3]
    assert not any("imbalanced" in note for note in balanced.notes)


@pytest.mark.parametrize("divided", [False, True], ids=["whole", "divided"])
def test_images_that_are_passed_over_are_told(pets, divided):
    folder = pets[0] if divided else pets[0] / "train"
    train = pets[0] / "train"
    save(train / "_spare", pixels(2, 90))
    save(train, pixels(1, 91))
    save(folder / ".hidden", pixels(4, 92))
    if divided:
        save(folder / "extra" / "ant", pixels(5, 93))
    options = "" if divided else ",test_share=0.34"
    notes = load(f"{folder}{options}").notes
    (told,) = [note for note in notes if "not read" in note]
    first = "extra/ant/000.png" if divided else "000.png"
    assert told == (
        f"{8 if divided else 3} images are not read, being outside the folders of classes "
        f"or in one that begins with _, such as {folder / first}"
    )


def keras():
    return {
        "x_train": pixels(12, channels=1),
        "y_train": np.arange(12) % 3,
        "x_test": pixels(6, 1, channels=1),
        "y_test": np.arange(6) % 3,
    }


def medmnist():
    given = keras()
    names = {"x": "images", "y": "labels"}
    held = {f"{k[2:]}_{names[k[0]]}": v for k, v in given.items()}
    held = {k: v[:, None] if "labels" in k else v for k, v in held.items()}
    return held | {"val_images": pixels(3, 2, channels=1), "val_labels": np.eye(3, 1)}


@pytest.mark.parametrize("held", [keras(), medmnist()], ids=["keras", "medmnist"])
def test_npz_files_of_others(tmp_path, held):
    np.savez(tmp_path / "mine.npz", **held)
    data = load(str(tmp_path / "mine.npz"))
    np.testing.assert_array_equal(data.train.images[..., 0], keras()["x_train"])
    np.testing.assert_array_equal(data.test.labels, np.arange(6) % 3)


def test_images_shared_by_the_splits_of_an_npz_are_told(tmp_path):
    held = keras()
    held["x_test"][:2] = held["x_train"][:2]
    np.savez(tmp_path / "mine.npz", **held)
    assert load(str(tmp_path / "mine.npz")).notes == (
        "2 of 6 test images are training images too, pixel for pixel; the accuracy on them "
        "says nothing",
    )


def test_imbalance_of_an_npz_with_too_few_names_is_no_traceback(tmp_path):
    held = keras() | {"y_train": np.minimum(np.arange(12), 2), "class_names": ["ant"]}
    np.savez(tmp_path / "mine.npz", **held)
    with pytest.raises(InputError, match="1 classes"):
        load(str(tmp_path / "mine.npz"))


def test_npz_of_one_split(tmp_path):
    np.savez(tmp_path / "one.npz", images=pixels(12), labels=np.arange(12) % 3)
    with pytest.raises(InputError, match="lacks test images"):
        load(str(tmp_path / "one.npz"))
    data = load(f"{tmp_path / 'one.npz'},test_share=0.25,size=9x10")
    assert data.image_shape == (9, 10, 3)
    assert np.bincount(data.train.labels).tolist() == [3, 3, 3]


def test_whole_sets_are_resized_too():
    data = load("embedded,size=14,colour=rgb")
    assert data.image_shape == (14, 14, 3)
    assert data.source == "embedded,size=14x14,colour=rgb"
    assert data.notes[0] == "train: 8000 of 8000 images resized to 14 x 14 (bicubic)"
    with pytest.raises(InputError, match="test_share has a meaning for files and folders"):
        load("embedded,test_share=0.2")


def hugging_face(images, labels, names):
    import pyarrow as pa

    cells = [{"bytes": png(image), "path": None} for image in images]
    features = {
        "image": {"_type": "Image"},
        "label": {"names": list(names), "_type": "ClassLabel"},
    }
    table = pa.table({"image": cells, "label": labels})
    held = json.dumps({"info": {"features": features}})
    return table.replace_schema_metadata({"huggingface": held})


def test_hugging_face_on_disk(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    import pyarrow as pa

    train, test = pixels(6), pixels(3, 1)
    tables = {
        split: hugging_face(images, np.arange(len(images)) % 3, CLASSES)
        for split, images in (("train", train), ("test", test))
    }
    (tmp_path / "hub" / "data").mkdir(parents=True)
    for split, table in tables.items():
        pq.write_table(table, tmp_path / "hub" / "data" / f"{split}-00000-of-00001.parquet")
        (tmp_path / "saved" / split).mkdir(parents=True)
        place = tmp_path / "saved" / split / "data-00000-of-00001.arrow"
        with (
            pa.OSFile(str(place), "wb") as file,
            pa.ipc.new_stream(file, table.schema) as writer,
        ):
            writer.write_table(table)
    for folder, kind in (("hub", "parquet"), ("saved", "arrow")):
        data = load(str(tmp_path / folder))
        np.testing.assert_array_equal(data.train.images, train)
        np.testing.assert_array_equal(data.test.images, test)
        assert (data.class_names, data.source) == (CLASSES, kind)


def written(folder, **tables):
    """A folder with a Parquet file for each split."""
    pq = pytest.importorskip("pyarrow.parquet")
    folder.mkdir()
    for split, table in tables.items():
        pq.write_table(table, folder / f"{split}.parquet")
    return str(folder)


def test_each_split_has_the_order_of_its_own_names(tmp_path):
    pytest.importorskip("pyarrow")
    images, labels = pixels(6), np.arange(6) % 3
    train = hugging_face(images, labels, CLASSES)
    test = hugging_face(pixels(3, 1), [0, 1, 2], ("cat", "ant", "bee"))
    data = load(written(tmp_path / "hub", train=train, test=test))
    assert data.class_names == CLASSES
    np.testing.assert_array_equal(data.train.labels, labels)
    np.testing.assert_array_equal(data.test.labels, [2, 0, 1])
    other = hugging_face(pixels(3, 1), [0, 1, 2], ("ant", "bee", "dog"))
    with pytest.raises(InputError, match=r"test names other classes \(ant, bee, dog\)"):
        load(written(tmp_path / "others", train=train, test=other))
    with pytest.raises(InputError, match=r"train-1\.parquet names its classes otherwise"):
        load(written(tmp_path / "parts", **{"train-0": train, "train-1": test}))


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_without_a_name_is_told(tmp_path, label):
    pytest.importorskip("pyarrow")
    train = hugging_face(pixels(3), [0, 1, 2], CLASSES)
    test = hugging_face(pixels(3, 1), [0, label, 2], CLASSES)
    with pytest.raises(InputError, match=f"test names 3 classes and has a label {label};"):
        load(written(tmp_path / "hub", train=train, test=test))


@pytest.mark.parametrize("label", [np.nan, np.inf, -np.inf, 0.5])
def test_a_label_that_is_no_whole_number(tmp_path, label):
    pa = pytest.importorskip("pyarrow")
    cells = [{"bytes": png(image)} for image in pixels(2)]
    table = pa.table({"image": cells, "label": [0.0, label]})
    with pytest.raises(InputError, match=f"row 2 has the label {label}; give each row a"):
        load(written(tmp_path / "mine", train=table))


def test_a_split_without_labels_is_refused(tmp_path):
    pytest.importorskip("pyarrow")
    table = hugging_face(pixels(3), [0, 1, 2], CLASSES)
    for lacking in ("label", "image"):
        test = table.drop_columns([lacking])
        with pytest.raises(InputError, match=f"test has no column {lacking!r}; it has"):
            load(written(tmp_path / lacking, train=table, test=test))


@pytest.mark.parametrize("options", ["", ",label=5", ",image=0,label=5"])
def test_a_csv_file_without_a_header_row_is_refused(tmp_path, options):
    pytest.importorskip("pyarrow")
    rows = [[label, *image.ravel()] for label, image in enumerate(pixels(3, channels=1))]
    lines = [",".join(map(str, [5, *np.zeros(64, int)]))]
    lines += [",".join(map(str, row)) for row in rows]
    (tmp_path / "digits.csv").write_text("\n".join(lines))
    with pytest.raises(InputError, match="several columns '0'; give it a header row"):
        load(f"{tmp_path / 'digits.csv'}{options}")


def test_a_split_that_is_spelt_in_two_ways_is_one(tmp_path):
    pytest.importorskip("pyarrow")
    images = pixels(8)
    save(tmp_path, images)
    spelt = ["train", "Train", "val", "valid", "train", "TRAIN", "dev", "validation"]
    lines = [f"{CLASSES[i % 2]},{i:03}.png,{split}" for i, split in enumerate(spelt)]
    (tmp_path / "all.csv").write_text("\n".join(["label,file,split", *lines]))
    data = load(f"{tmp_path / 'all.csv'},test=validation")
    for split, rows in ((data.train, [0, 1, 4, 5]), (data.test, [2, 3, 6, 7])):
        held = {(i.tobytes(), label) for i, label in zip(*split, strict=True)}
        assert held == {(images[row].tobytes(), row % 2) for row in rows}


def test_csv_with_paths_and_a_column_of_splits(tmp_path):
    pytest.importorskip("pyarrow")
    images = pixels(6)
    save(tmp_path / "files", images)
    lines = ["name,file,split"]
    for number in range(6):
        split = "dev" if number > 3 else "train"
        lines.append(f"{CLASSES[number % 2]},files/{number:03}.png,{split}")
    (tmp_path / "all.csv").write_text("\n".join(lines))
    data = load(f"{tmp_path / 'all.csv'},label=name,test=validation")
    np.testing.assert_array_equal(data.train.images, images[:4])
    assert data.class_names == CLASSES[:2]


@pytest.mark.parametrize("spelt", [False, True], ids=["columns", "texts"])
def test_csv_with_pixels(tmp_path, spelt):
    pytest.importorskip("pyarrow")
    images, labels = pixels(6, channels=1), np.array([5, 7, 9, 5, 7, 9])
    flat = images.reshape(6, -1)
    names = ["pixels"] if spelt else [f"pixel{i}" for i in range(64)]
    lines = [",".join(["label", *names])]
    for label, row in zip(labels, flat, strict=True):
        lines.append(f"{label}," + (" " if spelt else ",").join(map(str, row)))
    (tmp_path / "digits.csv").write_text("\n".join(lines))
    with pytest.raises(InputError, match="has 2 images, and training needs two besides"):
        load(f"{tmp_path / 'digits.csv'},test_share=0.5")
    (tmp_path / "digits.csv").write_text("\n".join(lines + lines[1:]))
    data = load(f"{tmp_path / 'digits.csv'},test_share=0.25")
    assert data.class_names == ("5", "7", "9")
    assert {i.tobytes() for i in data.train.images} == {i.tobytes() for i in images}
    assert "the labels 5 to 9 are 3 classes" in data.notes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (",sise=32", "unknown option 'sise' of the data; did you mean size"),
        (",color=grey", "did you mean colour"),
        (",size=4", "size=4: expected the side in pixels such as 32"),
        (",size=32,size=16", "size is given twice"),
        (",fit=pad", "add ,size=32"),
        (",colour=blue", "expected rgb or grey"),
        (",test_share=20", "a number between 0 and 1"),
        (",per_class=1", "at least 2"),
        (",test=holdout", "no split 'holdout'; it has train, validation, test"),
        (",test=train", "train is trained on and tested on"),
        (",test_share=0.2", r"beside the split test; drop it, or add ,train=train\+"),
        (",label=kind", "label names a column of a table, and this is no table"),
    ],
)
def test_options_that_cannot_be_met(pets, options, message):
    with pytest.raises(InputError, match=message):
        load(f"{pets[0]}{options}")


def test_images_of_several_sizes_need_one(pets):
    save(pets[0] / "train" / "ant", pixels(1, side=9), "bmp")
    with pytest.raises(
        InputError, match=r"of 2 sizes \(24 of 25 are 8 x 8, .*000\.bmp is 9"
    ):
        load(str(pets[0]))


def spoil(folder, how):
    place = folder / "train" / "ant" / "000.png"
    if how == "text":
        place.write_text("no image")
    elif how == "cut":
        place.write_bytes(place.read_bytes()[:100])
    elif how == "deep":
        PIL.fromarray(np.zeros((8, 8), np.uint16)).save(place)
    elif how == "empty":
        (folder / "train" / "dog").mkdir()
    elif how == "other":
        save(folder / "test" / "dog", pixels(1))
    elif how == "untested":
        for file in (folder / "test" / "cat").iterdir():
            file.unlink()
    elif how == "moving":
        frames = [PIL.fromarray(image) for image in pixels(2)]
        frames[0].save(place.with_suffix(".gif"), save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("text", r"train/ant/000\.png cannot be read \(it is no image\); repair it"),
        ("cut", r"train/ant/000\.png cannot be read"),
        ("deep", r"000\.png has more than 8 bits a channel; convert it to 8 bits"),
        ("empty", "train/dog holds no image"),
        ("other", "has the class 'dog', which .*train has not"),
        ("untested", "test_labels has no image of class 2 .cat. of 3"),
        ("moving", r"000\.gif has 2 frames"),
    ],
)
def test_damage_in_a_folder(pets, how, message):
    spoil(pets[0], how)
    with pytest.raises(InputError, match=message):
        load(str(pets[0]))


def test_more_than_eight_bits_are_not_converted(pets):
    spoil(pets[0], "deep")
    with pytest.raises(InputError, match="more than 8 bits a channel"):
        load(f"{pets[0]},colour=grey")


DEEP = {
    "grey.png": deep_png(0),
    "rgb.png": deep_png(2),
    "grey_alpha.png": deep_png(4),
    "rgb_alpha.png": deep_png(6),
    "rgb.tif": deep_tiff(1),
    "planes.tif": deep_tiff(2),
    "rgb.ppm": b"P6 8 8 65535\n" + bytes(384),
}


@pytest.mark.parametrize("options", ["", ",colour=rgb", ",size=8"])
@pytest.mark.parametrize("name", DEEP)
def test_files_of_sixteen_bits_are_refused(pets, name, options):
    (pets[0] / "test" / "bee" / name).write_bytes(DEEP[name])
    with pytest.raises(InputError, match=f"bee/{name} has more than 8 bits a channel"):
        load(f"{pets[0]}{options}")


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a,b\n1,2\n", "", "which column is the label. none has a usual name; add ,label="),
        ("label,b\n1,2\n", "", "which column is the image. none has a usual name"),
        ("label,class,image\n1,2,x.png\n", "", r"several might be \(label, class\)"),
        ("label,image\n1,x.png\n", ",label=kind", "no column 'kind'; it has label, image"),
        ("label,image\n1,x.png\n", ",test_share=0.2", r"image of row 1 is 'x\.png'"),
        ("label,image\n,x.png\n", "", "row 1 has the label None"),
        ("label,pixels\n1,1 2 3\n", "", "pixels of row 1 are 3 numbers"),
        ("", "", "not a readable table"),
        ("label,image\n1\n", "", "not a readable table"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, text, options, message):
    pytest.importorskip("pyarrow")
    (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        load(f"{tmp_path / 'mine.csv'}{options}")


def test_packages_that_are_absent_are_named(pets, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(InputError, match="reading images needs PIL; pip install 'pillow"):
        load(str(pets[0]))


def test_a_folder_named_as_a_tfds_set_shadows_nothing(pets, tmp_path, monkeypatch):
    pets[0].rename(tmp_path / "svhn_cropped")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="'svhn_cropped' is not prepared"):
        load("svhn_cropped", str(tmp_path / "nowhere"))
    assert load("./svhn_cropped").class_names == CLASSES
