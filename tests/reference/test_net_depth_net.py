"""The depth net against plain torch.nn.functional calls on its state dict (paper.md, "Lift")."""
import pytest
import torch
import torch.nn.functional as F

from langocc.models.view_transforms import DepthNet


class Reference:
    """Depth net in evaluation mode, written out from the published names."""

    def __init__(self, state):
        self.state = state

    def conv(self, x, name, **kwargs):
        return F.conv2d(x, self.state[f'{name}.weight'], self.state.get(f'{name}.bias'), **kwargs)

    def norm(self, x, name):
        keys = ('running_mean', 'running_var', 'weight', 'bias')
        mean, var, weight, bias = (self.state[f'{name}.{key}'] for key in keys)
        shape = (1, -1) + (1, ) * (x.ndim - 2)
        scale = weight / (var + 1e-5).sqrt()
        return (x - mean.view(shape)) * scale.view(shape) + bias.view(shape)

    def gated(self, x, numbers, branch):
        code = self.linear(F.relu(self.linear(numbers, f'{branch}_mlp.fc1')), f'{branch}_mlp.fc2')
        hidden = F.relu(self.conv(code[:, :, None, None], f'{branch}_se.conv_reduce'))
        return x * torch.sigmoid(self.conv(hidden, f'{branch}_se.conv_expand'))

    def linear(self, x, name):
        return x @ self.state[f'{name}.weight'].T + self.state[f'{name}.bias']

    def block(self, x, name):
        hidden = F.relu(self.norm(self.conv(x, f'{name}.conv1', padding=1), f'{name}.bn1'))
        hidden = self.norm(self.conv(hidden, f'{name}.conv2', padding=1), f'{name}.bn2')
        if f'{name}.downsample.weight' in self.state:
            x = self.conv(x, f'{name}.downsample')
        return F.relu(hidden + x)

    def aspp(self, x, name):
        branches = []
        for index, dilation in enumerate((1, 6, 12, 18), start=1):
            padding = 0 if dilation == 1 else dilation
            branch = self.conv(x, f'{name}.aspp{index}.atrous_conv', padding=padding,
                               dilation=dilation)
            branches.append(F.relu(self.norm(branch, f'{name}.aspp{index}.bn')))
        pooled = self.conv(x.mean((2, 3), keepdim=True), f'{name}.global_avg_pool.1')
        pooled = F.relu(self.norm(pooled, f'{name}.global_avg_pool.2'))
        branches.append(F.interpolate(pooled, size=x.shape[2:], mode='bilinear',
                                      align_corners=True))
        return F.relu(self.norm(self.conv(torch.cat(branches, 1), f'{name}.conv1'), f'{name}.bn1'))

    def __call__(self, x, numbers, cost=None):
        numbers = self.norm(numbers, 'bn')
        x = F.relu(self.norm(self.conv(x, 'reduce_conv.0', padding=1), 'reduce_conv.1'))
        context = self.conv(self.gated(x, numbers, 'context'), 'context_conv')
        depth = self.gated(x, numbers, 'depth')
        if cost is not None:
            for index in (0, 2):
                name = f'cost_volumn_net.{index}'
                cost = self.norm(self.conv(cost, name, stride=2, padding=1),
                                 f'cost_volumn_net.{index + 1}')
            depth = torch.cat([depth, cost], 1)
        for index in range(3):
            depth = self.block(depth, f'depth_conv.{index}')
        return self.conv(self.aspp(depth, 'depth_conv.3'), 'depth_conv.4'), context


@pytest.mark.parametrize('stereo', [False, True])
def test_depth_net_against_functional(stereo):
    net = DepthNet(6, 10, 4, 7, aspp_mid_channels=5, stereo=stereo).double().eval()
    for name, value in net.state_dict().items():
        if value.ndim == 1:
            torch.nn.init.uniform_(value, 0.5, 1.5)
    feats, numbers = torch.randn(2, 6, 20, 24).double(), torch.randn(2, 27).double()
    cost = torch.rand(2, 7, 80, 96).double() if stereo else None
    expected = Reference(net.state_dict())(feats, numbers, cost)
    outputs = net(feats, numbers, cost)
    assert [tuple(x.shape) for x in outputs] == [(2, 7, 20, 24), (2, 4, 20, 24)]
    for ours, theirs in zip(outputs, expected):
        assert theirs.std() > 1e-3
        torch.testing.assert_close(ours, theirs)
