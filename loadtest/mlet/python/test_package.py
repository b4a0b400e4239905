"""The package as users get it: a wheel, in an environment that has nothing else. The interpreter that runs this has pip,
setuptools and mypy."""

import os
import socket
import struct
import subprocess
import sys
import tempfile
import unittest
import zipfile
from pathlib import Path

HERE = Path(__file__).parent

MLET = """
from pktlab_mlet import AsyncSession, Connecting, ConnectionTimes, Session, results


def measure(endpoint: Session) -> float:
    reveal_type(endpoint.begin_connect("192.0.2.7", 80))
    return endpoint.connect("192.0.2.7", 80).times.took_ms


async def at_once(endpoint: AsyncSession) -> int:
    return await endpoint.clock()


for result in results("campaign"):
    print(result.key.upper())
"""


def run(*words: str, **how: object) -> "subprocess.CompletedProcess[str]":
    ended = subprocess.run(list(words), text=True, stdout=-1, stderr=-1, timeout=300, **how)  # type: ignore[call-overload]
    assert isinstance(ended, subprocess.CompletedProcess)
    return ended


class PackageTest(unittest.TestCase):
    def test_a_wheel_is_built_installed_used_and_checked(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            place = Path(name)
            # Built of a copy, so that nothing is left here.
            run("cp", "-r", str(HERE), str(place / "source"), check=True)
            build = ("-m", "pip", "wheel", "-q", "--no-deps", "--no-index", "--no-build-isolation")
            built = run(sys.executable, *build, "-w", name, str(place / "source"))
            self.assertEqual(built.returncode, 0, built.stderr)
            (wheel,) = place.glob("pktlab_mlet-*-py3-none-any.whl")
            sources = {f"pktlab_mlet/{one.name}" for one in (HERE / "pktlab_mlet").glob("*.py")}
            held = {one for one in zipfile.ZipFile(wheel).namelist() if one.startswith("pktlab_mlet/")}
            self.assertEqual(held, sources | {"pktlab_mlet/py.typed"})

            fresh = place / "fresh"
            made = run(sys.executable, "-m", "venv", str(fresh))
            self.assertEqual(made.returncode, 0, made.stderr)
            python = str(fresh / "bin/python")
            installed = run(python, "-m", "pip", "install", "-q", "--no-index", str(wheel))
            self.assertEqual(installed.returncode, 0, installed.stderr)
            self.runs_by_its_first_line(place, python)
            self.is_typed(place, python)

    def runs_by_its_first_line(self, place: Path, python: str) -> None:
        """With an environment as mlets have it: no PATH."""
        mlet = place / "clock.py"
        mlet.write_text(f"#!{python}\nfrom pktlab_mlet import Session\nprint(Session().clock())\n")
        mlet.chmod(0o755)
        near, far = socket.socketpair()
        far.sendall(struct.pack("!BHBIQ", 0x41, 0, 12, 0x10010000, 7))
        ended = run(str(mlet), stdin=near.fileno(), env={"EPADDR": "192.0.2.1"})
        self.assertEqual((ended.stdout, ended.stderr), ("7\n", ""))

    def is_typed(self, place: Path, python: str) -> None:
        """mypy sees the types of what is installed, and what is wrong with them in a mlet."""
        (place / "mine.py").write_text(MLET)
        check = ("-m", "mypy", "--strict", "--cache-dir", os.devnull, "--python-executable", python)
        told = run(sys.executable, *check, "mine.py", cwd=str(place)).stdout
        self.assertIn('Revealed type is "pktlab_mlet.session.Connecting"', told)
        self.assertRegex(told, r'error: Item "None" of .* has no attribute "upper"')
        self.assertIn("Found 1 error in 1 file", told)

    def test_everything_here_passes_mypy_strict(self) -> None:
        checked = sorted(str(one) for one in HERE.glob("*.py"))
        told = run(
            sys.executable, "-m", "mypy", "--strict", "--cache-dir", os.devnull, "pktlab_mlet", *checked, cwd=str(HERE)
        )
        self.assertRegex(told.stdout, r"\ASuccess: no issues found in \d+ source files\n\Z", told.stderr)


if __name__ == "__main__":
    unittest.main()
