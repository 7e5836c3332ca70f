"""RayIoU as a plain program: loops over rays and cells, floats of Python, no numpy maths.

Written from protocols.md. Grids are nested lists or arrays indexed [x][y][z]; 17 = free.
"""
import math

FREE = 17


def directions():
    """Unit directions, pitch by pitch, 360 azimuths each."""
    pitches = [-(math.pi / 2 - math.atan(k)) for k in range(1, 11)]
    step = pitches[-1] - pitches[-2]
    while pitches[-1] < 0.21:
        pitches.append(pitches[-1] + step)
    return [(math.cos(pitch) * math.cos(math.radians(azimuth)),
             math.cos(pitch) * math.sin(math.radians(azimuth)), math.sin(pitch))
            for pitch in pitches for azimuth in range(360)]


def chosen_origins(origins):
    """At most eight of the positions near enough."""
    near = [origin for origin in origins if abs(origin[0]) < 39 and abs(origin[1]) < 39]
    if len(near) <= 8:
        return near
    # round() of Python, as numpy's, takes the even neighbour of a half.
    return [near[round(i * (len(near) - 1) / 7)] for i in range(8)]


def walk(semantics, shape, origin, direction):
    """Amanatides and Woo in units of cells: the label and the distance at which a ray ends."""
    cell = [math.trunc(value) for value in origin]
    step = [(slope > 0) - (slope < 0) for slope in direction]
    to_next = [math.inf] * 3
    between = [math.inf] * 3
    for axis in range(3):
        if step[axis]:
            border = cell[axis] + (step[axis] > 0)
            to_next[axis] = (border - origin[axis]) / direction[axis]
            between[axis] = abs(1 / direction[axis])
    end = None
    for _ in range(10 * sum(shape)):
        # Of equal distances z is stepped first, then y, then x.
        nearest = min(to_next)
        axis = max(axis for axis in range(3) if to_next[axis] == nearest)
        inside = all(0 <= cell[i] < shape[i] for i in range(3))
        if inside:
            x, y, z = cell
            end = int(semantics[x][y][z]), nearest
            if end[0] != FREE:
                return end
        elif end is not None:
            return end
        cell[axis] += step[axis]
        to_next[axis] += between[axis]
    return end or (int(semantics[0][0][0]), -1.)


def counts_of(truth, prediction, shape, low, size, origins, rays, thresholds=(1., 2., 4.)):
    """Of one frame: hits by threshold and class, true and predicted rays by class."""
    hits = [[0] * 17 for _ in thresholds]
    true, predicted = [0] * 17, [0] * 17
    for origin in chosen_origins(origins):
        start = [(value - edge) / size for value, edge in zip(origin, low)]
        for ray in rays:
            label, distance = walk(truth, shape, start, ray)
            if not 0 <= label < FREE:
                continue
            guess, guessed_distance = walk(prediction, shape, start, ray)
            true[label] += 1
            if guess != FREE:
                predicted[guess] += 1
            if guess == label:
                for row, threshold in zip(hits, thresholds):
                    row[label] += abs(guessed_distance * size - distance * size) < threshold
    return hits, true, predicted


def scores_of(frames, left_out=()):
    """RayIoU at each threshold, and their mean, x 100, from the counts of many frames."""
    rows = []
    for t in range(len(frames[0][0])):
        ious = []
        for c in range(17):
            hit = sum(hits[t][c] for hits, _, _ in frames)
            union = sum(true[c] + predicted[c] for _, true, predicted in frames) - hit
            if union and c not in left_out:
                ious.append(hit / union)
        rows.append(100 * sum(ious) / len(ious))
    return rows, sum(rows) / len(rows)
