"""A whole training step of the paper's recipe: the published layout against ours, stage by stage.

Needs langocc. Legend: R rays.
"""
import copy
from typing import Callable, Dict, List, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxelrender import RayBundle

from .measure import measure_peak, median, peak_in_child
from .progress import say, turns
from .scene import EMBED_DIMS, PRESETS, made_up_rays
from .stages import StageClock, watch
from .step import gradient_errors, paper_loss
from .whole import reference
from .whole_case import WholeCase

Side = Callable[[StageClock], Tensor]


class TrainingCase:
    """A model in training mode, a sample and its rays with random targets.

    Args:
        preset: of `WholeCase`.
        device: of everything.
        images: 'made' or 'real'.
    """

    def __init__(self, preset: str, device: str, images: str):
        from mmdet3d.structures import Det3DDataSample
        case = WholeCase(preset, 1, device, images)
        self.inputs, self.model = case.samples[0], case.model.train()
        for module in self.model.modules():  # both sides draw the same random numbers without it
            if isinstance(module, nn.Dropout):
                module.p = 0.
        origins, directions = made_up_rays(PRESETS[preset][1])
        targets = F.normalize(torch.randn(len(origins), EMBED_DIMS), dim=-1)
        self.rays = RayBundle(origins, directions, targets=dict(lang_feats=targets)).to(device)
        self.samples: List = [Det3DDataSample()]
        self.samples[0].gt_rays = self.rays

    def ours(self, clock: StageClock) -> Tensor:
        """The loss, as `LangOcc` computes it."""
        torch.manual_seed(0)
        with watch(self.model, clock):
            return self.model.parse_losses(self.model.loss(self.inputs, self.samples))[0]

    def published(self, clock: StageClock) -> Tensor:
        """The loss in the published layout."""
        reference()  # puts its folder on the path
        from published_training import published_rendering
        torch.manual_seed(0)
        rendered = published_rendering(self.model, self.inputs, [self.rays], clock.stage)
        with clock.stage('loss'):
            return paper_loss(rendered, self.rays.targets['lang_feats'])

    def step(self, side: str) -> Tuple[StageClock, float]:
        """Stages of a step, the backward pass and the optimizer among them; the loss.

        Gradients are left in the model.
        """
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.)
        self.model.zero_grad()
        clock = StageClock(self.inputs['imgs'].device)
        with clock.stage('rest'):
            loss = getattr(self, side)(clock)
            with clock.stage('backward'):
                loss.backward()
            with clock.stage('optimizer'):
                optimizer.step()
        return clock, loss.item()

    def gradients(self) -> List[Tensor]:
        """Of every parameter, copied."""
        return [torch.zeros_like(p) if p.grad is None else p.grad.clone()
                for p in self.model.parameters()]


def benchmark_profile(arguments) -> Dict:
    """Both sides in turns on the same weights, images and rays; each one's memory in a child."""
    peaks = {side: peak_in_child(arguments, side) for side in ('published', 'ours')}
    say('making the model')
    case = TrainingCase(arguments.preset, arguments.device, arguments.rays)
    state = copy.deepcopy(case.model.state_dict())
    clocks, losses, grads = dict(published=[], ours=[]), {}, {}
    for _, side in turns(clocks, arguments.repeats):
        case.model.load_state_dict(state)  # running statistics
        clock, losses[side] = case.step(side)
        clocks[side].append(clock.seconds)
        grads[side] = case.gradients()
    stages: Dict[str, Dict] = {}
    for side, found in clocks.items():
        found = [dict(seconds, total=sum(seconds.values())) for seconds in found[1:]]
        for name in found[0]:
            stages.setdefault(name, {})[f'{side}_s'] = median([one[name] for one in found])
    total = stages['total']
    summary = dict(speedup=total['published_s'] / total['ours_s'],
                   **{f'{side}_peak_mb': peak for side, peak in peaks.items()},
                   memory_ratio=peaks['published'] / max(peaks['ours'], 1e-9),
                   loss_error=abs(losses['ours'] / losses['published'] - 1),
                   **gradient_errors(grads['ours'], grads['published']))
    return dict(summary=summary, profile=stages)


def peak_of_step(arguments) -> float:
    """Peak memory in MB of one step of the side ``arguments.peak_of``, for a child process."""
    case = TrainingCase(arguments.preset, arguments.device, arguments.rays)
    return measure_peak(lambda: case.step(arguments.peak_of), arguments.device)
