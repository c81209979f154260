"""The demo's data: the NCCTG lung cancer trial, split among three hospitals by the institution that enrolled each patient.

Eighteen institutions enrolled 227 of the 228 patients; nine of them fewer than ten patients each. No hospital of the demo is a single
institution: institutions go, the largest first, to the hospital that has the fewest patients so far, so that each hospital holds several,
and a tiny one always stands together with large ones. The one patient without an institution belongs to nobody and is left out, of the
hospitals' data and of the pooled truth alike.
"""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HOSPITALS = ("Aster", "Birch", "Cedar")
TINY_PATIENTS = 10
"""An institution with fewer patients is called tiny here."""

Row = Mapping[str, str]


@dataclass(frozen=True)
class Split:
    """Who holds which patients. `rows` has the trial's columns; missing values are empty."""

    columns: tuple[str, ...]
    rows: Mapping[str, Sequence[Row]]
    institutions: Mapping[str, Sequence[str]]
    tiny: Sequence[str]
    without_institution: int

    @property
    def pooled(self) -> list[Row]:
        """All patients of all hospitals together: what nobody has in reality."""
        return [row for rows in self.rows.values() for row in rows]


def split(path: Path, hospitals: Sequence[str] = HOSPITALS) -> Split:
    """Divide the trial's patients among hospitals."""
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        columns = tuple(reader.fieldnames or ())
        patients = list(reader)
    sizes = Counter(row["inst"] for row in patients if row["inst"])
    holder: dict[str, str] = {}
    load: Counter[str] = Counter(dict.fromkeys(hospitals, 0))
    for institution, size in sorted(sizes.items(), key=lambda item: (-item[1], float(item[0]))):
        hospital = min(hospitals, key=lambda name: (load[name], name))
        holder[institution] = hospital
        load[hospital] += size
    return Split(
        columns=columns,
        rows={name: [row for row in patients if holder.get(row["inst"]) == name] for name in hospitals},
        institutions={
            name: sorted((inst for inst, by in holder.items() if by == name), key=float) for name in hospitals
        },
        tiny=sorted((inst for inst, size in sizes.items() if size < TINY_PATIENTS), key=float),
        without_institution=sum(not row["inst"] for row in patients),
    )


def write(rows: Sequence[Row], columns: Sequence[str], path: Path) -> None:
    """Write a hospital's patients as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
