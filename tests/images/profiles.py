"""Colour profiles for tests, built from their parts (ICC.1:2001-04)."""

import itertools
import struct

P3 = {"r": (0.5151, 0.2412, -0.0011), "g": (0.2920, 0.6922, 0.0419), "b": (0.1571, 0.0666, 0.7841)}
D50 = (0.9642, 1.0, 0.8249)


def rgb_profile(gamma: float = 2.2, size: int = 0) -> bytes:
    """Display P3's primaries with a gamma, and `size` more bytes."""
    tags = {f"{name}XYZ".encode(): xyz_tag(xyz) for name, xyz in P3.items()}
    tags |= {f"{name}TRC".encode(): curve(gamma) for name in P3}
    return build("RGB ", "XYZ ", tags | ({b"junk": b"data\0\0\0\0" + bytes(size)} if size else {}))


def grey_profile(gamma: float = 1.0, connection: str = "XYZ ") -> bytes:
    """A grey profile with a gamma: of the luminance, or with connection "Lab " of the lightness."""
    return build("GRAY", connection, {b"kTRC": curve(gamma)})


def cmyk_profile() -> bytes:
    """A printer whose inks are all grey: L* falls by a third with each of C, M and Y, and to 0 with K."""
    nodes = b""
    for c, m, y, k in itertools.product((0, 1), repeat=4):
        nodes += bytes([round(255 * (1 - k) * (1 - (c + m + y) / 3)), 128, 128])
    identity = [65536 if i % 4 == 0 else 0 for i in range(9)]
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + struct.pack(">9i", *identity)
    return build("CMYK", "Lab ", {b"A2B0": table + 4 * bytes(range(256)) + nodes + 3 * bytes(range(256))}, b"prtr")


def xyz_tag(xyz: tuple[float, float, float]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65536 * value) for value in xyz))


def curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def build(space: str, connection: str, tags: dict[bytes, bytes], kind: bytes = b"mntr") -> bytes:
    name = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78)
    tags = {b"desc": name, b"cprt": b"text\0\0\0\0none\0", b"wtpt": xyz_tag(D50), **tags}
    table, body = struct.pack(">I", len(tags)), b""
    for tag, data in tags.items():
        table += struct.pack(">4sII", tag, 132 + 12 * len(tags) + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    header = bytearray(128)
    header[0:4] = struct.pack(">I", 128 + len(table) + len(body))
    header[8:24] = b"\2\x40\0\0" + kind + space.encode() + connection.encode()
    header[36:40] = b"acsp"
    header[68:80] = xyz_tag(D50)[8:]
    return bytes(header) + table + body
