"""Audit: the content and the problems of one or several datasets, as values for JSON.

It looks for problems that invalidate an evaluation: patients in several splits, duplicate images (in one folder, across
folders, across the published splits of a dataset), findings without positives, impossible values.
"""

from collections.abc import Sequence

from ribcage.data.audit.audited import Member, pairs
from ribcage.data.audit.copies import identical, near_copies
from ribcage.data.audit.counts import describe
from ribcage.data.audit.problems import problems
from ribcage.data.audit.result import AuditFindings, AuditResult
from ribcage.data.audit.shared import listed_splits, patients_across, split_families


def audit(members: Sequence[Member], *, near: bool = True) -> AuditResult:
    """The full audit; `near` includes near-duplicates, not only identical images."""
    sets = [describe(member) for member in members]
    crossing = [crossed for one, other in pairs(members) for crossed in patients_across(one, other)]
    families = [family for member in members for family in [*split_families(member), *listed_splits(member)]]
    result: AuditFindings = {
        "sets": sets,
        "identical": identical(members),
        "near": near_copies(members) if near else None,
        "not_compared": [member.label for member in members if member.fingerprints is None],
        "patients": crossing,
        "families": families,
    }
    return {"problems": problems(result), **result}
