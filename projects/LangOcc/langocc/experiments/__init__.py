"""Experiments: lists of runs, trained, evaluated and compared, that go on where they stopped."""
from .definition import Run, choose_runs, read_experiments
from .fingerprint import definition_of, fingerprint, load_config
from .inputs import check_inputs
from .job import Job
from .rows import make_row, read_rows
from .schedule import Outcome, Plan, Schedule, make_plan, write_summary
from .table import class_table, comparison_table, query_table

__all__ = ['Job', 'Outcome', 'Plan', 'Run', 'Schedule', 'check_inputs', 'choose_runs',
           'class_table', 'comparison_table', 'definition_of', 'fingerprint', 'load_config',
           'make_plan', 'make_row', 'query_table', 'read_experiments', 'read_rows', 'write_summary']
