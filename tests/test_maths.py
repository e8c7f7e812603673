"""The page of the derivations: what code and tests cite stands in it, and what it names exists."""

import ast
import io
import re
import tokenize
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "textdiff" / "maths.md").read_text()
FOLDERS = ("textdiff", "tests", "benchmarks", "experiments")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

NUMBER = r"\d+(?:\.\d+)?"
SECTIONS = set(re.findall(rf"^(?:#+ |\*\*|\* )({NUMBER})\b", PAGE, re.M))
EQUATIONS = set(re.findall(r"^ {4}.*\((\d+\.\d+[a-d]?)\)$", PAGE, re.M))
EQUATIONS |= set(re.findall(r"cited\s+as\s+\((\d+\.\d+)\)", PAGE))
CLAIMS = {int(number) for number in re.findall(r"^\| (\d+) \|", PAGE, re.M)}


def prose(path: Path) -> str:
    """The docstrings and comments of a file on one line, without their examples."""
    source = path.read_text()
    nodes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts = [ast.get_docstring(n) for n in ast.walk(ast.parse(source)) if isinstance(n, nodes)]
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = [token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT]
    lines = "\n".join([text for text in texts if text] + comments).splitlines()
    kept = [line for line in lines if not line.lstrip().startswith((">>>", "... "))]
    return " ".join(" ".join(kept).split())


def numbers(listed: str) -> list[str]:
    """The numbers of a list such as "3.4, 4.5" or "20-24, 26"; a range stands for its ends."""
    return re.findall(NUMBER, listed)


PROSE = {path: prose(path) for path in FILES}
LIST = rf"{NUMBER}(?:(?:, | and |-){NUMBER})*"


def cited(pattern: str) -> dict[str, str]:
    """Every number that a pattern's list cites, with a file that does."""
    return {
        number: str(path.relative_to(ROOT))
        for path, text in PROSE.items()
        for listed in re.findall(pattern, text)
        for number in numbers(listed)
    }


def test_every_section_cited_is_in_the_page():
    found = cited(rf"maths(?:\.md)?`? ({LIST})")
    assert len(found) > 15
    assert {n: path for n, path in found.items() if n not in SECTIONS} == {}


def test_every_equation_cited_is_in_the_page():
    found = {
        number: path.name
        for path, text in PROSE.items()
        for number in re.findall(r"(?<!\w)\((\d{1,2}\.\d{1,2}[a-d]?)\)", text)
    }
    assert len(found) > 20
    assert {n: path for n, path in found.items() if n not in EQUATIONS} == {}


def test_every_claim_cited_is_in_the_page():
    found = cited(rf"maths(?:\.md)?`? 7(?:: |, numbers? )({LIST})")
    assert len(found) > 20
    assert {n: path for n, path in found.items() if int(n) not in CLAIMS} == {}


def numbered_tests() -> dict[str, set[int]]:
    """The tests whose names begin with the numbers of claims."""
    names = [
        name
        for path in FILES
        if path.name.startswith("test_")
        for name in re.findall(r"^def (test_\d\d_\w+)", path.read_text(), re.M)
    ]
    leading = {name: re.match(r"test_((?:\d\d_)+)", name).group(1) for name in names}
    return {name: {int(n) for n in digits.split("_") if n} for name, digits in leading.items()}


def test_every_numbered_test_is_of_a_claim():
    for name, claims in numbered_tests().items():
        assert claims <= CLAIMS, name


def test_the_page_names_tests_that_exist_and_are_of_the_claim():
    tests, rows = numbered_tests(), re.findall(r"^\| (\d+) \|.*\| (`test.*) \|$", PAGE, re.M)
    assert len(rows) >= 45
    for number, cell in rows:
        named = re.findall(r"`(\w+)`", cell)
        assert named and all(int(number) in tests.get(name, ()) for name in named), (number, named)


def test_claims_are_numbered_in_order_and_those_with_a_test_name_it():
    assert CLAIMS == set(range(1, 51))
    held = {claim for claims in numbered_tests().values() for claim in claims}
    shown = {int(number) for number in re.findall(r"^\| (\d+) \|.*`test_", PAGE, re.M)}
    assert held == shown


def test_nothing_cites_what_is_not_in_the_repository():
    cites = {
        str(path.relative_to(ROOT)): re.findall(r"\b(?:design|paper|peers)\.md\b", path.read_text())
        for path in FILES
        if path != Path(__file__)
    }
    assert {path: names for path, names in cites.items() if names} == {}, "cite textdiff/maths.md"
