"""The retrieval protocol as a plain program: loops over points, floats of Python, no numpy maths.

Average precision is the sum over distinct scores, from the highest, of (growth of recall) x
precision, as scikit-learn defines it. Trilinear features by eight corners, zero beyond the grid.
"""
import math


def average_precision(labels, scores):
    """x 100; None without a positive."""
    positives = sum(map(bool, labels))
    if not positives:
        return None
    ranking = sorted(zip(scores, labels), key=lambda pair: -pair[0])
    total = found = hits = 0
    for taken, (value, label) in enumerate(ranking, start=1):
        hits += bool(label)
        if taken == len(ranking) or ranking[taken][0] != value:  # the last one of this score
            found += hits
            total += hits / positives * found / taken
            hits = 0
    return 100 * total


def unit(vector):
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector] if length > 0 else list(vector)


def feature_at(volume, point_cloud_range, voxel_size, point):
    """Unit feature of volume[z][y][x] (unit vectors), interpolated at a point in metres."""
    cells = [(p - low) / size - 0.5
             for p, low, size in zip(point, point_cloud_range, voxel_size)]
    lows = [math.floor(cell) for cell in cells]
    total = [0.] * len(volume[0][0][0])
    for corner in range(8):
        place = [low + (corner >> axis & 1) for axis, low in enumerate(lows)]
        share = 1.
        for cell, index in zip(cells, place):
            share *= 1 - abs(cell - index)
        shape = len(volume[0][0]), len(volume[0]), len(volume)
        if all(0 <= index < size for index, size in zip(place, shape)):
            x, y, z = place
            total = [t + share * f for t, f in zip(total, volume[z][y][x])]
    return unit(total)


def point_in(point_cloud_range, point):
    return all(low < p < high for low, p, high in zip(
        point_cloud_range[:3], point, point_cloud_range[3:]))


def score(labels, matching, points, point_cloud_range, voxel_size, volume, text, variant):
    """(visible, all) average precision of one query; matching: indices as in the file."""
    scores = []
    for point in points:
        if not point_in(point_cloud_range, point):
            point = [min(max(p, low + size / 2), high - size / 2) for p, low, high, size in zip(
                point, point_cloud_range[:3], point_cloud_range[3:], voxel_size)]
        feature = feature_at(volume, point_cloud_range, voxel_size, point)
        scores.append((sum(a * b for a, b in zip(feature, text)) + 1) / 2)
    if variant == 'pop3d':
        every, visible = list(range(len(points))), list(matching)
    else:
        every = [i for i, point in enumerate(points) if point_in(point_cloud_range, point)]
        visible = [i for i in every if i in set(matching)]
    return [average_precision([labels[i] for i in rows], [scores[i] for i in rows])
            for rows in (visible, every)]
