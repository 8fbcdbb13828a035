"""The page of collected runs."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.contract import is_number
from experiments.drawings import MEASURES
from experiments.groups import VERSION, Groups, means, repeated
from experiments.runs import Found, Run, filled, flat, numbers
from slth import report

OTHERS = 8
"""Numbers that the table shows of a run whose experiment has no measures of its own."""


def page_of(
    confidence: float,
    found: Found,
    groups: Sequence[Groups],
    figures: Sequence[report.Figure],
    commands: Mapping[str, Mapping[str, str]],
    hashes: Mapping[str, Mapping[str, str]],
    problems: Mapping[str, Sequence[str]],
) -> report.Page:
    """Runs as one page: what differs, means, every run, figures, and how to make each run again.

    Args:
      commands, hashes, problems: by `experiments.runs.Run.key`.
    """
    sheets = []
    for one in groups:
        sheets += [_differences(one), _means(one, confidence), _runs(one, problems)]
    return report.Page(
        title=f"{_count(len(found.runs), 'run')} of {', '.join(one.experiment for one in groups)}",
        summary=_summary(found, groups, problems),
        problems=[*_faults(found, groups), *_failures(found.runs), *_unsolved(found.runs)],
        sheets=sheets,
        figures=figures,
        entries=[_entry(run, commands[run.key], hashes[run.key], problems[run.key]) for run in found.runs],
    )


def _summary(found: Found, groups: Sequence[Groups], problems: Mapping[str, Sequence[str]]) -> list[str]:
    text = []
    for one in groups:
        runs = sum(len(members) for _, members in one.members)
        said = f"{_count(runs, 'run')} of {one.experiment} in {_count(len(one.members), 'configuration')}"
        if one.seeds:
            said += f", with different {' and '.join(one.seeds)}"
        text.append(said + ".")
    marked = sum(bool(one) for one in problems.values())
    text.append(f"{_count(marked, 'run')} of {len(found.runs)} with problems, marked with ⚠.")
    if found.unfinished:
        names = ", ".join(f"{path.parent.name}/{path.name.lstrip('.')}" for path in found.unfinished)
        text.append(f"{_count(len(found.unfinished), 'folder')} not finished, not read: {names}.")
    if found.again:
        text.append(f"{_count(len(found.again), 'copy', 'copies')} of runs already read, counted once.")
    return text


def _faults(found: Found, groups: Sequence[Groups]) -> list[str]:
    """What is wrong with the collection as a whole."""
    faults = [f"{path.parent.name}/{path.name} is not read: {why}" for path, why in found.broken.items()]
    for one in groups:
        if VERSION in one.settings:
            versions = ", ".join(map(str, one.settings[VERSION]))
            faults.append(f"{one.experiment}: runs of different versions of slth ({versions}), apart below")
        for _, runs in one.members:
            if repeated(one, runs):
                names = ", ".join(run.name for run in runs)
                faults.append(f"{one.experiment}: equal settings and equal seeds, so no interval: {names}")
    return faults


def _failures(runs: Sequence[Run]) -> list[str]:
    return [f"{run.key}: {text}" for run in runs for text in report.failures(run.metrics)]


def _unsolved(runs: Sequence[Run]) -> list[str]:
    """One line for all runs with unsolved subset sums, so that nothing rarer drowns in them."""
    shares = {
        run.key: values["subset_sum.unsolved"] / max(values["subset_sum.problems"], 1)
        for run in runs
        if (values := numbers(run)).get("subset_sum.unsolved")
    }
    if not shares:
        return []
    worst = max(shares, key=shares.__getitem__)
    return [
        f"{_count(len(shares), 'run')} with unsolved subset-sum problems: at most "
        f"{100 * shares[worst]:.2f} % of them ({worst})"
    ]


def _differences(groups: Groups) -> report.Sheet:
    rows = [
        {"setting": name, "values": report.shown(values)}
        for name, values in (groups.settings | groups.seeds).items()
    ]
    return report.Sheet(f"What differs between the runs of {groups.experiment}", rows)


def _means(groups: Groups, confidence: float) -> report.Sheet:
    rows = []
    for (settings, found), (_, runs) in zip(means(groups, confidence), groups.members, strict=True):
        row = dict(settings) or {"configuration": "all runs"}
        rows.append(row | {"n": len(runs)} | {name: found.get(name) for name in _shown(groups)})
    percent = f"{100 * confidence:g} %"
    note = f"Mean ± half the {percent} interval by Student's t; n runs differ in nothing but seeds."
    if not _shown(groups):
        rows = []
    return report.Sheet(f"Means of {groups.experiment}", filled(rows), note, live=len(rows) > 1)


def _runs(groups: Groups, problems: Mapping[str, Sequence[str]]) -> report.Sheet:
    rows: list[dict[str, Any]] = []
    bad: set[tuple[int, str]] = set()
    links: dict[int, str] = {}
    for own, runs in groups.members:
        for run in runs:
            number, settings, values = len(rows), flat(run.settings), numbers(run)
            said = problems[run.key]
            links[number] = place_of(run)
            rows.append(
                {
                    "run": run.name,
                    "problems": len(said),
                    **own,
                    **{name: settings.get(name) for name in groups.seeds},
                    **{name: values.get(name) for name in _shown(groups)},
                }
            )
            if said:
                bad.add((number, "problems"))
            if values.get("subset_sum.unsolved"):
                bad.add((number, "subset_sum.unsolved"))
    note = "Click a heading to sort, type to filter; a run's name leads to its command and hashes."
    return report.Sheet(f"Runs of {groups.experiment}", filled(rows), note, live=True, bad=bad, links=links)


def _shown(groups: Groups) -> list[str]:
    """The numbers that the tables show."""
    if groups.experiment in MEASURES:
        return [measure.name for measure in MEASURES[groups.experiment]]
    each = [numbers(run) for _, runs in groups.members for run in runs]
    known = dict.fromkeys(name for one in each for name, value in one.items() if is_number(value))
    return list(known)[:OTHERS]


def place_of(run: Run) -> str:
    """Where a page has a run."""
    return f"{run.experiment}-{run.name}"


def _entry(
    run: Run, commands: Mapping[str, str], hashes: Mapping[str, str], problems: Sequence[str]
) -> report.Entry:
    facts = {"run": run.name, "folder": str(run.folder), **hashes}
    facts |= {f"problem {number}": text for number, text in enumerate(problems, 1)}
    environment = run.metrics.get("environment")
    if isinstance(environment, dict):
        facts["environment"] = ", ".join(f"{k} {v}" for k, v in environment.items())
    title = f"{run.experiment} {run.name}{' ⚠' if problems else ''}"
    return report.Entry(place_of(run), title, facts, commands)


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
