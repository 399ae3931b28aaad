"""The Baseline event, the certificates that a check reads, and the tables of docs/baseline.md."""

from __future__ import annotations

import ast
import datetime
import importlib
import re
import sys
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

sys.path.insert(0, str(Path(__file__).resolve().parent))

from debiantree import hardened  # noqa: E402
from test_baseline_debian import FAILS  # noqa: E402
from test_messages import LANES, ROOT, VALIDATOR, device  # noqa: E402
from vedette_tools import deployment, mpy  # noqa: E402
from vedette_tools.expand import expand  # noqa: E402

PACKS = ROOT / "firmware/vedette/baseline"


@pytest.mark.parametrize("lane", LANES)
def test_both_forms_of_the_event_keep_to_the_schema(lane: str, tmp_path: Path) -> None:
    tree = hardened(tmp_path / "root")
    for number in ("3.3.1", "3.3.7", "5.1.20", "5.4.1.1", "7.1.9", "1.6.4"):
        FAILS[number](tree)
    tree.path("/proc/sys/net/ipv4/tcp_syncookies").unlink()
    found = []
    for form in ("columns", "objects"):
        (message,) = device(lane, "render_baseline.py", form, tree.root)
        VALIDATOR.validate(message)
        assert isinstance(message["Events"][0]["Payload"], dict if form == "columns" else list)
        assert sum(event["ChecksRun"] for event in message["Events"]) == len(FAILS)
        assert sum(event["ChecksPassed"] for event in message["Events"]) == len(FAILS) - 7
        found.append([row for event in message["Events"] for row in expand(event)["Payload"]])
    assert found[0] == found[1]
    rows = {row["check_id"]: row for row in found[0]}
    assert len(rows) == 7
    assert rows["CIS-debian-12-Network-3.3.7"] == {
        "check_id": "CIS-debian-12-Network-3.3.7",
        "result": "Fail",
        "error": "net.ipv4.conf.all.rp_filter is 2",
        "description": "Reverse paths are filtered",
        "remediation": "Set net.ipv4.conf.{all,default}.rp_filter = 1",
        "severity": "Medium",
    }
    assert rows["CIS-debian-12-Network-3.3.10"]["result"] == "Error"
    assert "tcp_syncookies" in rows["CIS-debian-12-Network-3.3.10"]["error"]


def certificate(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, day: datetime.date) -> bytes:
    names = [
        x509.NameAttribute(NameOID.COMMON_NAME, "a root " * 5),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Maker"),
    ]
    built = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(names))
        .issuer_name(x509.Name(names))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime(1999, 1, 1))
        .not_valid_after(datetime.datetime.combine(day, datetime.time(23, 59, 59)))
        .sign(key, hashes.SHA256())
    )
    return built.public_bytes(Encoding.DER)


@pytest.mark.parametrize("lane", LANES)
def test_the_last_day_of_real_certificates_is_read(lane: str, tmp_path: Path) -> None:
    keys = [ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)]
    days = [datetime.date(*day) for day in ((1999, 12, 31), (2038, 1, 19), (2049, 12, 31),
                                            (2050, 1, 1), (9999, 12, 31))]  # fmt: skip
    paths = []
    for number, day in enumerate(days):
        paths.append(tmp_path / f"{number}.der")
        paths[-1].write_bytes(certificate(keys[number % 2], day))
    (ends,) = device(lane, "certificate_ends.py", *paths)
    assert ends == [day.isoformat() for day in days]


def test_what_vedette_deploy_records_is_what_the_checks_read(tmp_path: Path) -> None:
    files = {"app.mpy": b"M" * 3000, "vedette/__init__.mpy": b"", "ca/root 1.der": b"0"}
    record = deployment._record(deployment.Plan("0.1.0", "v-b", "v-a", files, {}))
    board = {"v-b/" + path: data for path, data in files.items()}
    board |= {name: (ROOT / "firmware" / name).read_bytes() for name in deployment.ROOT_FILES}
    board |= {"deployed.txt": record.encode(), "v-a/app.mpy": b"old"}
    for path, data in board.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    assert device("64", "deployed_files.py", tmp_path) == [["", ""]]
    (tmp_path / "v-b/ca/root 1.der").write_bytes(b"1")
    (tmp_path / "boot.py").unlink()
    (tmp_path / "lib.py").write_bytes(b"")
    assert device("64", "deployed_files.py", tmp_path) == [
        ["boot.py, v-b/ca/root 1.der", "lib.py"]
    ]


@pytest.mark.parametrize("lane", LANES)
def test_the_agents_own_files_are_not_taken_for_something_bad(lane: str) -> None:
    deployed = mpy.compile_all("xtensawin")
    assert device(lane, "held_names.py", deployed) == [{"key": "", "code": ""}]


FUSES = {
    "5.1": {"ESP32": [["ABS_DONE_0", "ABS_DONE_1"]], "": [["SECURE_BOOT_EN"]]},
    "5.2": {"ESP32": [["FLASH_CRYPT_CNT"]], "": [["SPI_BOOT_CRYPT_CNT"]]},
    "5.3": {"ESP32": [["JTAG_DISABLE"]], "": [["DIS_PAD_JTAG"], ["SOFT_DIS_JTAG"]]},
    "5.4": {"ESP32": [], "": [["DIS_USB_JTAG"]]},
    "5.5": {
        "ESP32": [["UART_DOWNLOAD_DIS"]],
        "": [["DIS_DOWNLOAD_MODE", "ENABLE_SECURITY_DOWNLOAD"]],
    },
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what espefuse imports
@pytest.mark.parametrize("chip", ["ESP32", "ESP32S3", "ESP32C3"])
def test_fuses_stand_where_espressifs_own_tool_reads_them(chip: str) -> None:
    name = chip.lower()
    defined = importlib.import_module(f"espefuse.efuse.{name}.mem_definition")
    start = defined.EfuseDefineBlocks().BLOCKS[0][3]
    folder = Path(defined.__file__).parents[2] / "efuse_defs"
    table = yaml.safe_load((folder / f"{name}.yaml").read_text())["EFUSES"]
    pack = (PACKS / "hardware.py").read_text()
    for number, fuses in FUSES.items():
        expected = []
        for fields in fuses.get(chip, fuses[""]):
            (word,) = {table[field]["word"] for field in fields}
            bits = [((1 << table[field]["len"]) - 1) << table[field]["pos"] for field in fields]
            expected.append((start + 4 * word, sum(bits)))
        call = re.search(rf"^Hardware-{number}\|\w+\|register (.*?)\|", pack, re.MULTILINE)
        assert call
        cases = [case.split(":") for case in call[1].split(" ")]
        found = [(int(case[1], 16), int(case[2], 16)) for case in cases if case[0] == chip]
        assert found == expected, number


def checks(path: Path) -> list[tuple[str, str, str]]:
    """Id, description and severity of each check of a pack."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CHECKS":
            benchmark, *lines = ast.literal_eval(node.value).strip().split("\n")
            return [
                (f"{benchmark}-{fields[0]}", fields[3], fields[1])
                for fields in (line.split("|") for line in lines)
            ]
    raise AssertionError(f"{path} has no CHECKS")


def test_the_documentation_lists_each_check() -> None:
    text = (ROOT / "docs/baseline.md").read_text()
    rows = [
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in text.splitlines()
        if re.match(r"\| (CIS|MPY)-", line)
    ]
    packs = [path for path in sorted(PACKS.glob("*.py")) if path.name != "__init__.py"]
    expected = [check for path in packs for check in checks(path)]
    assert sorted(rows) == sorted(expected)
    assert sum(row[0].startswith("MPY") for row in rows) >= 25
    assert sum(row[0].startswith("CIS") for row in rows) >= 25
