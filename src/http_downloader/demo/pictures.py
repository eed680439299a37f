"""Pictures drawn with the standard library: rings and slanted waves in three colours."""

import colorsys
import hashlib
import math
import struct
import zlib

# Adding n to every byte of a row, modulo 256, is one bytes.translate() with table n.
_ADD = [bytes((value + n) % 256 for value in range(256)) for n in range(256)]


def picture(seed: int, width: int = 320, height: int = 240) -> bytes:
    """A PNG of `width` times `height` pixels; the same arguments give the same bytes."""
    dice = hashlib.sha256(str(seed).encode()).digest()
    rows = _rows(dice, width, height)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (
            _chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 3, 0, 0, 0)),
            _chunk(b"PLTE", _palette(dice)),
            _chunk(b"IDAT", zlib.compress(rows, 6)),
            _chunk(b"IEND", b""),
        )
    )


def _rows(dice: bytes, width: int, height: int) -> bytes:
    """Palette indices, each row behind its filter byte.

    A pixel is across(x + slant * y) + down(y). Both sums can be made for a whole row at once, as a slice
    and a translation, which is a hundred times faster than to compute each pixel. Circles fit in as well:
    the square of a distance is such a sum.
    """
    side = max(width, height)
    slant = dice[0] % 2
    centre_x, centre_y = (dice[1] / 255 + slant) * width, dice[2] / 255 * height
    curl = (150 + 2 * dice[3]) / side**2
    waves, swing = math.tau * (1 + dice[4] % 3) / side, 6 + dice[5] % 22

    def level(position: int, centre: float, phase: int) -> int:
        return round(curl * (position - centre) ** 2 + swing * math.sin(waves * position + phase)) % 256

    across = bytes(level(x, centre_x, dice[6]) for x in range(width + slant * height))
    down = [level(y, centre_y, dice[7]) for y in range(height)]
    return b"".join(b"\0" + across[slant * y : slant * y + width].translate(_ADD[down[y]]) for y in range(height))


def _palette(dice: bytes) -> bytes:
    """256 colours that lead from the first of three to the last and back, so that no edge shows."""
    hue = dice[8] / 255
    stops = [colorsys.hls_to_rgb(hue + turn, light, 0.65) for turn, light in ((0, 0.30), (0.10, 0.55), (0.22, 0.82))]
    colours = bytearray()
    for index in range(256):
        way = 1 - math.cos(math.tau * index / 256)  # 0 … 2 … 0, slow at both ends
        lower = min(int(way), 1)
        colours += bytes(
            round(255 * (a + (b - a) * (way - lower))) for a, b in zip(stops[lower], stops[lower + 1], strict=True)
        )
    return bytes(colours)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
