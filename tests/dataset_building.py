"""What tests of building a dataset share: the table of photographs, and what lies in a folder."""

import csv

N = 12


def table(photos):
    with open(photos / "metadata.csv", encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def write_table(photos, rows):
    with open(photos / "metadata.csv", "w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def reasons(result):
    return {item.file: item.reason for item in result.set_aside}


def everything(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
