"""The ops as naive float64 loops, differentiable: what every implementation is compared with."""
import itertools
import math

import torch

DTYPE = torch.float64


def naive_product(rows, cols, values, feats, num_rows):
    out = torch.zeros(num_rows, feats.shape[1], dtype=DTYPE)
    for row, col, value in zip(rows.tolist(), cols.tolist(), values):
        out[row] = out[row] + value * feats[col]
    return out


def naive_lift_splat(depth, context, points, grid, truncate):
    batch, cameras, bins, height, width = depth.shape
    cells = grid.grid_shape
    volume = torch.zeros(batch, context.shape[2], *grid.volume_shape, dtype=DTYPE)
    places = itertools.product(range(batch), range(cameras), range(bins), range(height),
                               range(width))
    for b, n, d, i, j in places:
        index = []
        for axis in range(3):
            cell = ((points[b, n, d, i, j, axis].item() - grid.point_cloud_range[axis])
                    / grid.voxel_size[axis])
            index.append(math.trunc(cell) if truncate else math.floor(cell))
        if all(0 <= index[axis] < cells[axis] for axis in range(3)):
            x, y, z = index
            volume[b, :, z, y, x] += depth[b, n, d, i, j] * context[b, n, :, i, j]
    return volume


def naive_bilinear(feats, x, y):
    """Value (C,) of feats (C, H, W) at feature coordinates x, y; zero outside."""
    total = torch.zeros(feats.shape[0], dtype=DTYPE)
    for i in (math.floor(y), math.floor(y) + 1):
        for j in (math.floor(x), math.floor(x) + 1):
            if 0 <= i < feats.shape[1] and 0 <= j < feats.shape[2]:
                total = total + (1 - abs(y - i)) * (1 - abs(x - j)) * feats[:, i, j]
    return total


def naive_cost_volume(cur, prev, warps, depths, image_size, bias, published):
    batch, channels, height, width = cur.shape
    image_h, image_w = image_size
    costs = torch.zeros(batch, len(depths), height, width, dtype=DTYPE)
    probe = [c for c in range(channels) if c % 4 == 0][-1]
    for b, k, i, j in itertools.product(range(batch), range(len(depths)), range(height),
                                        range(width)):
        u, v = j * (image_w - 1) / max(width - 1, 1), i * (image_h - 1) / max(height - 1, 1)
        d = depths[k].item()
        q = warps[b] @ torch.tensor([u * d, v * d, d, 1.], dtype=DTYPE)
        found, valid = torch.zeros(channels, dtype=DTYPE), False
        if q[2] > 1e-3:
            x, y = (q[0] / q[2]).item(), (q[1] / q[2]).item()
            found = naive_bilinear(prev[b], x * (width - 1) / max(image_w - 1, 1),
                                   y * (height - 1) / max(image_h - 1, 1))
            valid = -0.5 <= x <= image_w - 0.5 and -0.5 <= y <= image_h - 0.5
        if published:
            valid = found[probe] != 0
        costs[b, k, i, j] = (cur[b, :, i, j] - found).abs().sum() + (0 if valid else bias)
    return torch.softmax(-costs, dim=1)


def naive_trilinear(grid, volume, point):
    """Value (C,) of a volume (C, Z, Y, X) at one point, zero outside."""
    place = []
    for axis in range(3):
        low, high = grid.lower[axis], grid.upper[axis]
        cells, share = grid.grid_shape[axis], (point[axis].item() - low) / (high - low)
        place.append(share * (cells - 1) if grid.alignment == 'edges' else share * cells - 0.5)
    total = torch.zeros(volume.shape[0], dtype=DTYPE)
    for offset in itertools.product((0, 1), repeat=3):
        cell = [math.floor(value) + step for value, step in zip(place, offset)]
        if all(0 <= i < cells for i, cells in zip(cell, grid.grid_shape)):
            share = math.prod(1 - abs(value - i) for value, i in zip(place, cell))
            total = total + share * volume[:, cell[2], cell[1], cell[0]]
    return total


def naive_samples(edges, sigmas, count):
    """Importance samples of one ray, lists in and out: the CDF and a search through it."""
    passed, cdf = 0., []
    for index, sigma in enumerate(sigmas):
        cdf.append(1 - math.exp(-passed))
        passed += sigma * (edges[index + 1] - edges[index])
    cdf.append(1.)
    found = []
    for index in range(count):
        u = (index + 0.5) / count
        low = max(k for k in range(len(sigmas)) if cdf[k] <= u)
        share = (u - cdf[low]) / (cdf[low + 1] - cdf[low])
        found.append(edges[low] + share * (edges[low + 1] - edges[low]))
    return found


def naive_weights(sigmas, starts, ends):
    """Weights and transmittance (R, S) by a running product along each ray."""
    weights, passed = [], []
    trans = 1 + 0 * sigmas.sum(1)
    for index in range(sigmas.shape[1]):
        alpha = 1 - torch.exp(-sigmas[:, index] * (ends[:, index] - starts[:, index]))
        passed.append(trans)
        weights.append(trans * alpha)
        trans = trans * (1 - alpha)
    if not weights:
        return sigmas * 0, sigmas * 0
    return torch.stack(weights, 1), torch.stack(passed, 1)
