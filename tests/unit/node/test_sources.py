"""Sources of data that could never be read are refused where they are written down, with the block's name."""

import os
import re
from pathlib import Path

import pytest

from folkmoot.node.config import parse_config, read_toml
from folkmoot.node.data import jobs
from folkmoot.node.data.files import parts
from folkmoot.node.data.omop import TABLES
from folkmoot.node.data.sources import Source, SourceKind
from folkmoot.node.data.table_source import Settings
from folkmoot.trust import Reference, digest
from folkmoot.trust.errors import FolkmootError

HEAD = """
state_directory = "state"
runtime_directory = "/run/x"
[[collaboration]]
collaboration = "lung@GENESIS"
server = "localhost:1"
node_key = "node.pem"
organization_key = "key.pem"
policy = "policy.toml"
encryption = "sealed"
"""


def labels(tmp_path: Path, text: str) -> dict[str, Source]:
    """Read the data blocks of a node.toml."""
    path = tmp_path / "node.toml"
    path.write_text(HEAD.replace("lung@GENESIS", str(Reference("lung", digest(b"genesis")))) + text)
    [block] = parse_config(read_toml(path), path).collaboration
    return dict(block.data)


@pytest.mark.parametrize(
    "path",
    [
        *("relative.xlsx", "/data/*.xlsx", "/data/[a].xlsx", "/data/?.xlsx", "/data/../x.xlsx", "", "/"),
        *(
            "volume:",
            "volume:/x.xlsx",
            "volume:../x.xlsx",
            "volume:v//etc/x.xlsx",
            "volume:v/../x.xlsx",
            "volume:./x.xlsx",
        ),
    ],
)
def test_workbook_must_be_one_file(path):
    with pytest.raises(FolkmootError, match="path"):
        Source(SourceKind.EXCEL, path)


@pytest.mark.parametrize("path", ["/data/*.csv", "/data", "/data/a.csv.gz", "volume:hospital/parts/*.csv"])
def test_csv_may_be_many_files(path):
    assert Source(SourceKind.CSV, path).path == path


@pytest.mark.parametrize("name", ["", "varchar", "VARCHAR; DROP", "VARCHAR)", "DECIMAL(10", "'"])
def test_type_must_be_a_type(name):
    with pytest.raises(FolkmootError, match="must be one such as"):
        Source(SourceKind.CSV, Path("/data/a.csv"), {"x": name})


@pytest.mark.parametrize("name", ["VARCHAR", "DOUBLE", "DECIMAL(10, 2)", "TIMESTAMP WITH TIME ZONE", "INT4"])
def test_types_of_columns_can_be_given(name):
    assert Source(SourceKind.CSV, Path("/data/a.csv"), {"x": name}).types == {"x": name}


def test_types_of_a_parquet_file_are_its_own():
    with pytest.raises(FolkmootError, match="only be given for csv"):
        Source(SourceKind.PARQUET, Path("/data/a.parquet"), {"x": "VARCHAR"})


class TestParts:
    @pytest.mark.parametrize("path", ["", "*.csv", "*/*.csv"])
    def test_link_that_leads_out_of_the_folder_is_refused(self, tmp_path, path):
        """Who may put a file into the folder could otherwise have the node's key read."""
        (tmp_path / "key.csv").write_text("x\n1\n")
        folder = tmp_path / "folder" / "sub" if "/" in path else tmp_path / "folder"
        folder.mkdir(parents=True)
        (folder / "good.csv").write_text("x\n1\n")
        settings = Settings(label="x", kind="csv", path=str(tmp_path / "folder" / path))
        (folder / "within.csv").symlink_to(folder / "good.csv")
        assert parts(settings) == [str(folder / "good.csv"), str(folder / "within.csv")]
        (folder / "out.csv").symlink_to(tmp_path / "key.csv")
        with pytest.raises(PermissionError, match=r"out\.csv"):
            parts(settings)

    def test_what_is_no_file_is_no_part(self, tmp_path):
        """Opening a pipe that nobody writes to would wait for ever."""
        os.mkfifo(tmp_path / "a.csv")
        (tmp_path / "b.csv").mkdir()
        with pytest.raises(FileNotFoundError):
            parts(Settings(label="x", kind="csv", path=str(tmp_path)))


async def test_link_in_a_volume_leads_nowhere_else(tmp_path, monkeypatch):
    """Containers put there what they like."""
    monkeypatch.setattr(jobs, "_mount_point", lambda name: tmp_path / name)
    (tmp_path / "v").mkdir()
    (tmp_path / "v/passwd.csv").symlink_to("/etc/passwd")
    (tmp_path / "v/good.csv").symlink_to("x.csv")
    with pytest.raises(OSError, match="leads out of volume v"):
        await jobs.place("volume:v/passwd.csv")
    assert await jobs.place("volume:v/good.csv") == tmp_path / "v/good.csv"


def test_credential_is_known_in_every_form_in_which_a_library_may_tell_it():
    known = list(jobs.secrets_of({"secret": "p@ss 'w", "url": "postgresql://ada@db/x", "of": []}))
    assert {"p@ss 'w", "p%40ss%20%27w", "p%40ss+%27w", "YWRhOnBAc3MgJ3c="} <= set(known)


class TestBlocks:
    def test_relative_path_begins_at_the_file(self, tmp_path):
        read = labels(tmp_path, '[collaboration.data.patients]\nsource = "csv"\npath = "a.csv"\n')
        assert read["patients"].path == str(tmp_path / "a.csv")

    def test_volume_stays_what_it_is(self, tmp_path):
        read = labels(tmp_path, '[collaboration.data.scans]\nsource = "folder"\npath = "volume:pacs/2024"\n')
        assert read["scans"].path == "volume:pacs/2024"
        assert read["scans"].is_folder

    @pytest.mark.parametrize(
        ("block", "text"),
        [
            ('source = "fax"', "'fax' is not known"),
            ('source = "postgres"\nurl = "postgresql://reader:secret@db/records"', "must not hold a password"),
            ('source = "postgres"\nurl = "mysql://reader@db/records"', "postgresql://"),
            ('source = "postgres"\nurl = "postgresql://[::1/records"', "postgresql://"),
            ('source = "postgres"\nurl = "postgresql://reader@db:54x/records"', "postgresql://"),
            ('source = "sparql"\nurl = "https://endpoint/"', "needs its SELECT"),
            ('source = "view"\nsql = "SELECT 1"', "needs what it is of"),
            ('source = "view"\nof = "nobody"\nsql = "SELECT 1"', "'nobody'"),
            ('source = "view"\nof = "patients"\nsql = "SELECT 1"', "is made of itself"),
            ('source = "csv"\npath = "/a.csv"\npassword_file = "x"\npassword_variable = "X"', "exclude each other"),
            ('source = "omop"\nof = "patients"', "made of itself"),
        ],
    )
    def test_what_can_not_be_is_refused_with_its_label(self, tmp_path, block, text):
        with pytest.raises(FolkmootError, match=text) as refused:
            labels(tmp_path, f"[collaboration.data.patients]\n{block}\n")
        assert "patients" in refused.value.message
        assert "secret" not in refused.value.message.replace("password", "")

    def test_label_of_a_folder_names_a_folder(self, tmp_path):
        with pytest.raises(FolkmootError, match="letters, digits"):
            labels(tmp_path, '[collaboration.data."a/../b"]\nsource = "folder"\npath = "/scans"\n')

    def test_connection_is_for_views_only_and_offered_to_nobody(self, tmp_path):
        read = labels(
            tmp_path,
            '[collaboration.data.records]\nsource = "postgres"\nurl = "postgresql://reader@db/records"\n'
            '[collaboration.data.adults]\nsource = "view"\nof = "records"\nsql = "SELECT 1"\n',
        )
        assert list(read) == ["adults"]
        assert read["adults"].has_network

    def test_omop_becomes_a_label_for_each_table(self, tmp_path):
        read = labels(
            tmp_path,
            '[collaboration.data.records]\nsource = "postgres"\nurl = "postgresql://reader@db/records"\n'
            '[collaboration.data.cdm]\nsource = "omop"\nof = "records"\nschema = "omop"\ntables = ["person", "death"]\n',
        )
        assert list(read) == ["cdm.person", "cdm.death"]
        assert '"omop"."person"' in read["cdm.person"].sql

    def test_omop_leaves_out_the_hospitals_own_codes(self):
        assert not [column for columns in TABLES.values() for column in columns if "source_value" in column]

    def test_unknown_table_of_omop_names_those_that_are_there(self, tmp_path):
        with pytest.raises(FolkmootError, match=r"notes.*person"):
            labels(
                tmp_path,
                '[collaboration.data.records]\nsource = "duckdb"\npath = "/cdm.duckdb"\n'
                '[collaboration.data.cdm]\nsource = "omop"\nof = "records"\ntables = ["notes"]\n',
            )


def test_example_of_the_documents_can_be_read(tmp_path):
    document = (Path(__file__).parents[3] / "docs/data-sources.md").read_text()
    [example] = re.findall(r"```toml\n(.*?)```", document, re.DOTALL)
    read = labels(tmp_path, example.replace("[collaboration.data.cdm]", WAREHOUSE))
    assert {"patients", "records", "adults", "cdm.person", "scans"} <= set(read)
    assert "warehouse" not in read


@pytest.mark.parametrize("kind", SourceKind)
def test_every_kind_of_source_is_listed_in_the_documents(kind: SourceKind):
    document = (Path(__file__).parents[3] / "docs/data-sources.md").read_text()
    assert f"`{kind.value}`" in document or f'"{kind.value}"' in document


WAREHOUSE = """
[collaboration.data.warehouse]
source = "postgres"
url = "postgresql://reader@db.hospital.example/warehouse"
[collaboration.data.cdm]"""
