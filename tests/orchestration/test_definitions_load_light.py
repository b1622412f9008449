import subprocess
import sys

HEAVY = ("torch", "lightning", "mlflow", "feast", "great_expectations", "duckdb", "pyarrow")


def test_the_code_location_loads_none_of_the_heavy_libraries() -> None:
    program = (
        "import sys; from orchestration.definitions import defs; defs();"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )

    answer = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)

    assert answer.stdout.strip().splitlines()[-1] == "[]"
