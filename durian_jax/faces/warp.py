"""Warp pictures and masks by keypoints: first a similarity, then a thin-plate spline.

This is the project's Face Aligner (arXiv 2509.04434 uses an image-to-3D-avatar model). It moves an attribute
image and its mask to the place and pose of another face. Pixel positions count from the picture's corner:
pixel i covers i..i+1 and its centre is at i + 0.5.
"""

import cv2
import numpy as np

from durian_jax.faces.topology import GROUPS, RIGID

# Control points of the spline: the outline and the stable inner points. Lips and lids are left out, because
# expression must not bend a hat.
SPLINE = np.unique(np.concatenate([np.arange(GROUPS["contour"].start, GROUPS["contour"].stop), RIGID]))
_GRID = 24  # nodes per side of the grid on which the smooth spline is evaluated before interpolation


def similarity(source_points: np.ndarray, target_points: np.ndarray) -> np.ndarray:
    """Return the least-squares similarity in the plane (Umeyama 1991, without reflection).

    Args:
        source_points: (N, 2), N at least 2.
        target_points: (N, 2).

    Returns:
        (2, 3) float64 `m` with target ~ m[:, :2] @ source + m[:, 2].
    """
    source = np.asarray(source_points, np.float64)[:, :2]
    target = np.asarray(target_points, np.float64)[:, :2]
    a, b = source - source.mean(0), target - target.mean(0)
    # A similarity without shift is multiplication by a complex number, so its least squares is a quotient.
    norm = max((a * a).sum(), 1e-12)
    real = (a * b).sum() / norm
    imaginary = (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / norm
    linear = np.array([[real, -imaginary], [imaginary, real]])
    return np.concatenate([linear, (target.mean(0) - linear @ source.mean(0))[:, None]], 1)


def keypoint_similarity(from_keypoints: np.ndarray, to_keypoints: np.ndarray, height: int, width: int,
                        points: np.ndarray = RIGID) -> np.ndarray:
    """Return the (2, 3) similarity in pixels between two faces' (K, 3) keypoints, fitted to `points`."""
    size = np.array([width, height])
    return similarity(from_keypoints[points, :2] * size, to_keypoints[points, :2] * size)


def transform_keypoints(keypoints: np.ndarray, matrix: np.ndarray, height: int, width: int) -> np.ndarray:
    """Move (..., K, 3) keypoints by a (2, 3) matrix in pixels; depth follows the scale."""
    size = np.array([width, height])
    moved = (keypoints[..., :2] * size) @ matrix[:, :2].T + matrix[:, 2]
    scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    return np.concatenate([moved / size, keypoints[..., 2:] * scale], -1).astype(np.float32)


def warp_image(image: np.ndarray, matrix: np.ndarray, border: str = "zero",
               size: tuple[int, int] | None = None) -> np.ndarray:
    """Warp a picture by a (2, 3) matrix in pixels (source position -> target position).

    Args:
        image: (H, W) or (H, W, C).
        matrix: (2, 3).
        border: "zero" fills pixels from outside the picture with 0, "replicate" repeats the edge.
        size: (H, W) of the result; None keeps the picture's size.

    Returns:
        (H, W[, C]) of the image's dtype, bilinearly sampled.
    """
    height, width = size or image.shape[:2]
    mode = {"zero": cv2.BORDER_CONSTANT, "replicate": cv2.BORDER_REPLICATE}[border]
    return cv2.warpAffine(image, _from_centres(matrix), (width, height), flags=cv2.INTER_LINEAR, borderMode=mode)


def warp_nearest(field: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Warp a bit field to (H, W) by nearest sampling, because bits cannot be averaged; repeat the edge."""
    return cv2.warpAffine(field, _from_centres(matrix), size[::-1], flags=cv2.INTER_NEAREST,
                          borderMode=cv2.BORDER_REPLICATE)


def _from_centres(matrix: np.ndarray) -> np.ndarray:
    """Convert a matrix to OpenCV's positions, which count from the first pixel's centre, not its corner."""
    centred = np.array(matrix, np.float64)
    centred[:, 2] += centred[:, :2] @ (0.5, 0.5) - 0.5
    return centred


def warp_mask(mask: np.ndarray, matrix: np.ndarray, threshold: float = 0.5, border: str = "zero",
              size: tuple[int, int] | None = None) -> np.ndarray:
    """Warp a mask to (H, W) bool: pixels whose covered share exceeds `threshold` (0: any overlap)."""
    return warp_image(mask.astype(np.uint8) * 255, matrix, border, size) > 255 * threshold


def spline(source_points: np.ndarray, target_points: np.ndarray, smooth: float | np.ndarray = 0.0):
    """Return the thin-plate spline that maps N source points to N target points.

    Args:
        source_points: (N, 2), not all on one line.
        target_points: (N, 2).
        smooth: 0 interpolates; larger values bend less (in units of N x distance^2, see Wahba 1990). One for each
            point, or one for all.

    Returns:
        A function from (..., 2) positions to (..., 2) positions.
    """
    source, target = np.asarray(source_points, np.float64), np.asarray(target_points, np.float64)
    count = len(source)
    centre, extent = source.mean(0), max(source.std(), 1e-9)
    unit = (source - centre) / extent  # keeps the system well conditioned in any unit
    affine = np.concatenate([np.ones((count, 1)), unit], 1)
    system = np.zeros((count + 3, count + 3))
    system[:count, :count] = _radial(unit, unit) + np.diag(np.broadcast_to(smooth, count))
    system[:count, count:], system[count:, :count] = affine, affine.T
    wanted = np.concatenate([target, np.zeros((3, 2))])
    # Neighbouring keypoints may coincide in profile. Then no exact solution exists, but a smooth one does.
    weights = np.linalg.solve(system, wanted) if np.min(smooth) > 0 else np.linalg.lstsq(system, wanted, rcond=None)[0]

    def move(positions: np.ndarray) -> np.ndarray:
        shape = np.shape(positions)
        at = (np.reshape(positions, (-1, 2)) - centre) / extent
        moved = _radial(at, unit) @ weights[:count] + weights[count] + at @ weights[count + 1:]
        return moved.reshape(shape)

    return move


def spline_field(targets: np.ndarray, sources: np.ndarray, height: int, width: int, smooth: float | np.ndarray,
                 grid: int) -> np.ndarray:
    """The spline that maps target points to source points, as a field for `cv2.remap`.

    Args:
        targets, sources: (N, 2) in shares of the picture's sides.
        smooth: see `spline`.
        grid: nodes per side of the grid on which the spline is evaluated before interpolation.

    Returns:
        (H, W, 2) float32: where in the source picture each pixel of the result comes from.
    """
    nodes = np.arange(grid + 1) / grid
    coarse = spline(targets, sources, smooth)(np.stack(np.meshgrid(nodes, nodes), -1)) * (width, height) - 0.5
    x, y = (((np.arange(count) + 0.5) * grid / count).astype(np.float32) for count in (width, height))
    return cv2.remap(coarse.astype(np.float32), *np.meshgrid(x, y), cv2.INTER_LINEAR)


def _radial(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the (len(a), len(b)) thin-plate kernel r^2 log r."""
    squared = ((a[:, None] - b[None]) ** 2).sum(-1)
    return 0.5 * squared * np.log(np.maximum(squared, 1e-20))


def align(image: np.ndarray, mask: np.ndarray, from_keypoints: np.ndarray, to_keypoints: np.ndarray,
          smooth: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    """Warp a picture and a mask from one face's pose to another's.

    A similarity moves the whole picture. A thin-plate spline adds the residual at the face's own points.
    A ring of anchors around the head holds the spline at zero there, because an extrapolated spline would
    tear long hair and hats apart.

    Args:
        image: (H, W, 3) uint8.
        mask: (H, W) bool.
        from_keypoints: (K, 3) of the face in `image`.
        to_keypoints: (K, 3) of the face to follow.
        smooth: the spline's smoothness, see `spline`.

    Returns:
        (H, W, 3) uint8 and (H, W) bool in the target's pose; 0 outside the source picture.
    """
    height, width = mask.shape
    size = np.array([width, height])
    source, target = from_keypoints[SPLINE, :2] * size, to_keypoints[SPLINE, :2] * size
    forward = keypoint_similarity(from_keypoints, to_keypoints, height, width)
    back = cv2.invertAffineTransform(forward)

    centre = target.mean(0)
    radius = 2.2 * np.sqrt(((target - centre) ** 2).sum(1)).max()
    angles = np.arange(12) * (2 * np.pi / 12)
    ring = centre + radius * np.stack([np.cos(angles), np.sin(angles)], 1)
    # Backward warp: the spline maps target positions to source positions.
    knots = np.concatenate([target, ring])
    residual = np.concatenate([source - (target @ back[:, :2].T + back[:, 2]), np.zeros((12, 2))])
    bend = spline(knots, residual, smooth)

    grid = np.stack(np.meshgrid((np.arange(_GRID) + 0.5) * width / _GRID,
                                (np.arange(_GRID) + 0.5) * height / _GRID), -1)
    field = cv2.resize(bend(grid).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    pixels = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), -1)
    origin = (pixels @ back[:, :2].T + back[:, 2] + field - 0.5).astype(np.float32)
    moved = cv2.remap(image, origin, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    cover = cv2.remap(mask.astype(np.uint8) * 255, origin, None, cv2.INTER_LINEAR,
                      borderMode=cv2.BORDER_CONSTANT)
    return moved, cover > 127
