"""Colours of HDR video as ordinary ones.

ITU-R BT.2100 defines the two transfer functions, BT.2408 which of their values show a white sheet of paper. White
becomes white, as in a player on an ordinary screen. Only what is brighter is compressed. Colours that BT.709 lacks are
clipped.
"""

from functools import cache

import numpy as np

# Number of the transfer function in a video's header (ISO 23091-2) -> its name.
HDR_TRANSFERS = {16: "PQ", 18: "HLG"}

_WHITE_HLG = 0.75  # BT.2408: signal of white
_WHITE_PQ = 203.0  # BT.2408: candela per square metre of white
_KNEE = 0.85  # linear light above which it is compressed; 1 is white
_TO_709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32)
_STEPS = 4096  # of the table of sRGB's curve


def to_sdr(image: np.ndarray, transfer: int) -> np.ndarray:
    """Convert a picture of BT.2020 colours to sRGB.

    Args:
        image: (H, W, 3) uint16 R'G'B', full range.
        transfer: a key of `HDR_TRANSFERS`.

    Returns:
        (H, W, 3) uint8.
    """
    light = _light(transfer)[image] @ _TO_709.T
    brightest = np.maximum(light.max(-1, keepdims=True), 1e-6)
    over, room = np.maximum(brightest - _KNEE, 0), 1 - _KNEE
    light *= (np.minimum(brightest, _KNEE) + room * over / (over + room)) / brightest
    return _srgb()[(np.clip(light, 0, 1) * (_STEPS - 1) + 0.5).astype(np.int32)]


@cache
def _light(transfer: int) -> np.ndarray:
    """(65536,) float32: linear light of a signal; 1 is white."""
    signal = np.arange(1 << 16) / 65535
    linear = {16: _pq, 18: _hlg}[transfer]
    return (linear(signal) / (_WHITE_PQ if transfer == 16 else linear(np.array(_WHITE_HLG)))).astype(np.float32)


def _hlg(signal: np.ndarray) -> np.ndarray:
    """Light of the scene, 0..1 (BT.2100, table 5)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)


def _pq(signal: np.ndarray) -> np.ndarray:
    """Candela per square metre (BT.2100, table 4)."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = signal ** (1 / m2)
    return 10000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)


@cache
def _srgb() -> np.ndarray:
    """(_STEPS,) uint8: sRGB's value of linear light (IEC 61966-2-1)."""
    light = np.linspace(0, 1, _STEPS)
    value = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(255 * value).astype(np.uint8)
