"""A small ImageNet: folders of photographs, and what TFDS writes of them."""

import io
import json
import struct
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image

from slth.data.imagenet import validation_labels, wnids

KINDS = (0, 7, 999)
"""Classes of which the small set has photographs."""
TRAIN, VAL = 5, 3
"""Photographs of each class."""


def name_of(part: str, kind: int, number: int) -> str:
    """The name of a photograph, as the archives have them."""
    if part == "train":
        return f"{wnids()[kind]}_{number + 1}.JPEG"
    numbers = [at + 1 for at, label in enumerate(validation_labels()) if label == kind]
    return f"ILSVRC2012_val_{numbers[number]:08}.JPEG"


def jpeg(part: str, kind: int, number: int) -> bytes:
    """A photograph of 40 x 30 pixels or the like, of one colour that says which it is."""
    colour = (kind % 256, 20 * number, 200 if part == "train" else 40)
    file = io.BytesIO()
    Image.new("RGB", (40 + number, 30 + kind % 5), colour).save(file, "JPEG", quality=100, subsampling=0)
    return file.getvalue()


def members(part: str) -> list[tuple[int, int]]:
    """Class and number of each photograph of a part."""
    return [(kind, number) for kind in KINDS for number in range(TRAIN if part == "train" else VAL)]


def write_folders(place: Path, *, by_class: bool = True, val: str = "val") -> Path:
    """The set as its archives are extracted; validation images by class or not."""
    for part, folder in (("train", "train"), ("val", val)):
        for kind, number in members(part):
            inner = (wnids()[kind],) if by_class or part == "train" else ()
            path = place.joinpath(folder, *inner, name_of(part, kind, number))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg(part, kind, number))
    return place


def write_prepared(place: Path, form: str, splits: tuple[str, ...] = ("train", "validation")) -> Path:
    """The set as TFDS writes it, in two shards a split, in the order of a hash: here that of the numbers."""
    builder = tfds.builder("imagenet2012", data_dir=place)
    features, folder = builder.info.features, place / "imagenet2012" / "5.1.0"
    folder.mkdir(parents=True)
    (folder / "features.json").write_text(json.dumps(features.to_json()))
    described = []
    for split in splits:
        part = "train" if split == "train" else "val"
        ordered = sorted(members(part), key=lambda one: one[::-1])
        shards = ordered[:4], ordered[4:]
        for at, shard in enumerate(shards):
            records = [
                features.serialize_example(
                    features.encode_example(
                        {
                            "image": io.BytesIO(jpeg(part, kind, number)),
                            "label": wnids()[kind],
                            "file_name": name_of(part, kind, number),
                        }
                    )
                )
                for kind, number in shard
            ]
            _write_shard(folder / f"imagenet2012-{split}.{form}-{at:05}-of-00002", form, records)
        described.append(
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": split,
                "numBytes": "1",
                "shardLengths": [str(len(shard)) for shard in shards],
            }
        )
    info = {"fileFormat": form, "name": "imagenet2012", "version": "5.1.0", "splits": described}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return place


def _write_shard(path: Path, form: str, records: list[bytes]) -> None:
    if form == "array_record":
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for record in records:
            writer.write(record)
        writer.close()
        return
    framed = (struct.pack("<QI", len(record), 0) + record + bytes(4) for record in records)
    path.write_bytes(b"".join(framed))


def said(images: np.ndarray, data) -> list[tuple[int, int]]:
    """Class and number of each photograph by the colour in its middle, undone from `slth.data.Data`."""
    side = images.shape[1] // 2
    colours = np.rint((images[:, side, side] * data.std + data.mean) * 255).astype(int)
    kinds = {kind % 256: kind for kind in KINDS}
    return [(kinds[min(kinds, key=lambda red: abs(red - r))], round(g / 20)) for r, g, _ in colours]
