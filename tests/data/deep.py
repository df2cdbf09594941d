"""Pictures of 16 bits a channel, which PIL does not write."""

import struct
import zlib

import numpy as np


def deep_png(colours, height=8, width=8):
    """A PNG file of a type of colours: 0 grey, 2 RGB, 4 grey and 6 RGB with opacity."""

    def chunk(kind, held):
        check = zlib.crc32(kind + held)
        return struct.pack(">I", len(held)) + kind + held + struct.pack(">I", check)

    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colours]
    rows = np.zeros((height, 1 + 2 * width * channels), np.uint8)
    header = struct.pack(">IIBBBBB", width, height, 16, colours, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def deep_tiff(planar):
    """A TIFF file of 8 x 8 RGB pixels: 1 pixel by pixel, 2 plane by plane."""
    planes, plane = (1, 384) if planar == 1 else (3, 128)
    many = 8 + 2 + 12 * 9 + 4  # what follows the directory: lists of three numbers
    sizes, places = many + 6, many + 18
    pixels = many + 30
    starts = [pixels + plane * number for number in range(planes)]
    long, short = 4, 3
    entries = [
        (256, long, 1, 8),  # width
        (257, long, 1, 8),  # height
        (258, short, 3, many),  # bits of each sample
        (259, long, 1, 1),  # not compressed
        (262, long, 1, 2),  # RGB
        (273, long, planes, starts[0] if planes == 1 else places),
        (277, long, 1, 3),  # samples a pixel
        (279, long, planes, plane if planes == 1 else sizes),
        (284, long, 1, planar),
    ]
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", *entry) for entry in entries)
    lists = struct.pack("<3H", 16, 16, 16) + struct.pack("<3I", *[plane] * 3)
    lists += struct.pack("<3I", *(starts * 3)[:3])
    head = struct.pack("<2sHI", b"II", 42, 8)
    return head + directory + struct.pack("<I", 0) + lists + bytes(384)
