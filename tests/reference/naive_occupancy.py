"""Scores of occupancy as a plain program: one voxel after another, no matrix, no numpy maths.

Written from protocols.md. A sample is (semantics, mask_camera, mask_lidar, prediction), each a flat
list in one order; 17 = free.
"""
import math


def scores(samples, mask, dropped=()):
    """IoU of the 17 classes (nan: absent) and of occupied against free.

    Args:
        samples: see the module.
        mask: 'camera', 'lidar', 'camera_lidar' or 'none'.
        dropped: classes whose truth is not counted at all.
    """
    hits, true, predicted = [0] * 18, [0] * 18, [0] * 18
    both = either = 0
    for sample in samples:
        for gt, camera, lidar, guess in zip(*sample):
            seen = {'camera': camera, 'lidar': lidar, 'camera_lidar': camera and lidar,
                    'none': True}[mask]
            if not seen or not 0 <= gt < 18 or gt in dropped:
                continue
            true[gt] += 1
            predicted[guess] += 1
            hits[gt] += gt == guess
            both += gt != 17 and guess != 17
            either += gt != 17 or guess != 17
    ious = []
    for c in range(17):
        union = true[c] + predicted[c] - hits[c]
        ious.append(hits[c] / union if union else math.nan)
    return ious, both / either if either else math.nan


def average(ious, without=()):
    """Mean over the classes that are there."""
    kept = [v for c, v in enumerate(ious) if c not in without and not math.isnan(v)]
    return sum(kept) / len(kept)


def all_scores(samples, mask):
    """What OccMetric gives under a mask: x 100, by key without the mask's suffix."""
    ious, geometric = scores(samples, mask)
    without, _ = scores(samples, mask, dropped=(0, 12))
    return dict(occ17_mIoU=100 * average(ious), occ15_mIoU=100 * average(ious, (0, 12)),
                occ15_gt_ignored_mIoU=100 * average(without, (0, 12)), geo_IoU=100 * geometric,
                ious=[100 * iou for iou in ious])
