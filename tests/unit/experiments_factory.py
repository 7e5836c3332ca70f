"""Stand-ins for the tools that experiments run: they train nothing and take milliseconds."""
import json
from pathlib import Path

CONFIG = '''"""A config."""
_base_ = ['base.py']
os = __import__('os')
train_cfg = dict(max_iters=int(os.environ.get('LANGOCC_MAX_ITERS', 4)))
model = dict(type='Net', width=1, losses=dict(lang=dict(type='Loss', mode='mse')))
train_dataloader = dict(dataset=dict(pipeline=[dict(type='Load'), dict(
    type='Rays', source=dict(type='Lidar'), frames=[0, 1])]))
'''
BASE = 'default_hooks = dict(checkpoint=dict(type="Hook", interval=1))\nrandomness = dict(seed=0)\n'

# Steps are appended to steps.txt beside the checkpoints: a resumed training shows no step twice.
# A config of a prior that reads a file, and of a training that reads a folder.
READING = '''
_base_ = ['config.py']
model = dict(prior='{root}/prior.npz')
train_dataloader = dict(dataset=dict(pipeline=[dict(teacher=dict(root='{root}/maps'))]))
test_dataloader = dict(dataset=dict(root='{root}'))
'''
TRAIN = '''import os, sys, time
words, env = sys.argv, os.environ
folder, resume = words[words.index('--work-dir') + 1], '--resume' in words
options = dict(word.split('=', 1) for word in words[words.index('--cfg-options') + 1:])
every, steps = int(options['default_hooks.checkpoint.interval']), int(env['LANGOCC_MAX_ITERS'])
os.makedirs(folder, exist_ok=True)
step, record = 0, os.path.join(folder, 'last_checkpoint')
if resume and os.path.exists(record):
    step = int(open(record).read().split('iter_')[1].split('.')[0])
if options.get('model.fail') == '1':
    sys.exit('RuntimeError: no such layer')
while step < steps:
    time.sleep(float(env.get('STEP_SECONDS', 0)))
    step += 1
    with open(os.path.join(folder, 'steps.txt'), 'a') as file:
        file.write(f'{step} ')
    print(f'mmengine - INFO - Iter(train) [{step:3d}/{steps}]  eta: 0:00:01  time: 0.5000  '
          'data_time: 0.1  loss: 1.0', flush=True)
    if step % every == 0 or step == steps:
        path = os.path.join(folder, f'iter_{step}.pth')
        open(path, 'w').write(options['randomness.seed'])
        open(record, 'w').write(path)
    if step == int(env.get('DIE_AT', -1)):
        os._exit(9)
'''
TEST = '''import json, os, sys, time
words = sys.argv
time.sleep(float(os.environ.get('TEST_SECONDS', 0)))
value = 20.0
if len(words) > 2 and words[2].endswith('.pth'):
    value += 2 * int(open(words[2]).read())
if os.environ.get('BAD_METRICS'):
    sys.exit('ValueError: bad labels')
json.dump(dict(geo_IoU=value, occ17_mIoU=value / 2, IoU_car=value / 4, IoU_bus=None),
          open(words[words.index('--out') + 1], 'w'))
'''
RETRIEVAL = '''import json, os, sys
words = sys.argv
assert words[2].endswith('.pth') and os.path.isdir(words[words.index('--benchmark') + 1])
rows = [dict(query='car', token='a', split='val', visible=40.0, all=30.0, chance=10.0),
        dict(query='car', token='b', split='val', visible=60.0, all=30.0, chance=20.0),
        dict(query='bus', token='b', split='val', visible=None, all=None, chance=0.0)]
json.dump(dict(queries=rows, means=dict(all=dict(visible=50.0, teacher=70.0, chance=10.0))),
          open(words[words.index('--out') + 1], 'w'))
'''
COST = '''import json, os, sys
folder, = sys.argv[1:]
assert os.path.isdir(os.path.join(folder, 'train'))
json.dump(dict(trained_parameters=2500000, flops=3.2e9, seconds=0.5, peak_memory_mb=120.4,
               device='cpu', input='made', threads=2), open(os.path.join(folder, 'cost.json'), 'w'))
'''


def write_stand_ins(folder: Path) -> Path:
    """Stand-ins for tools/, config.py with its base and benchmark/ in ``folder``."""
    (folder / 'tools').mkdir(parents=True)
    for name, text in dict(train=TRAIN, test=TEST, eval_retrieval=RETRIEVAL,
                           model_cost=COST).items():
        (folder / 'tools' / f'{name}.py').write_text(text)
    (folder / 'config.py').write_text(CONFIG)
    (folder / 'base.py').write_text(BASE)
    (folder / 'benchmark').mkdir()
    return folder


def steps_done(folder: Path) -> list:
    """What a run's trainings did, in order."""
    return [int(word) for word in (folder / 'train' / 'steps.txt').read_text().split()]


def read(path: Path) -> dict:
    """A JSON file."""
    return json.loads(path.read_text())
